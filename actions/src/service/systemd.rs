//! Services of systemd, by `systemctl`.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::action::{ActionCx, ActionError};
use domain::plan::Target;
use serde_json::{Value, json};

use super::{State, Status, ask, tell};
use crate::Tools;

/// What a unit's name may end with; a name without is a service (`systemd.unit(5)`).
const SUFFIXES: [&str; 11] =
    [".service", ".socket", ".timer", ".target", ".path", ".mount", ".automount", ".swap", ".slice", ".scope", ".device"];

/// A unit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unit(String);

impl Unit {
    pub(super) fn of(target: &Target) -> Result<Unit, String> {
        let name = target.text("unit").ok_or_else(|| format!("target {:?} lacks `unit`", target.name))?;
        let fits = |c: char| c.is_ascii_alphanumeric() || ":_.\\@-".contains(c);
        if name.is_empty() || name.len() > 250 || name.starts_with(['-', '.']) || !name.chars().all(fits) {
            return Err(format!("target {:?}: {name:?} is no name of a unit", target.name));
        }
        let whole = SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
        Ok(Unit(if whole { name.to_owned() } else { format!("{name}.service") }))
    }

    pub(super) async fn restart(&self, tools: &Tools, cx: &ActionCx) -> Result<(String, Value), ActionError> {
        let args = ["restart", "--no-ask-password", &self.0].map(str::to_owned).to_vec();
        let said = tell(tools, &tools.settings.systemctl, args, cx).await?;
        match said.ok {
            true => Ok((format!("{} restarted", self.0), json!({ "unit": self.0 }))),
            false => Err(ActionError::Failed(said.problem)),
        }
    }

    pub(super) async fn status(&self, tools: &Tools, limit: Duration) -> Result<Status, ActionError> {
        let args = ["show", "-p", "LoadState,ActiveState,SubState,MainPID,NRestarts,Result", &self.0].map(str::to_owned).to_vec();
        let said = ask(tools, &tools.settings.systemctl, args, limit).await?;
        match said.ok {
            true => read(&self.0, &said.stdout).map_err(ActionError::Failed),
            false => Err(ActionError::Failed(said.problem)),
        }
    }
}

/// Reads `NAME=value` lines.
fn read(unit: &str, text: &str) -> Result<Status, String> {
    let fields: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let field = |name: &str| fields.get(name).copied().unwrap_or_default();
    if field("LoadState") == "not-found" {
        return Err(format!("systemd knows no unit {unit}: correct the target's `unit`"));
    }
    let (active, sub) = (field("ActiveState"), field("SubState"));
    let state = match active {
        "active" | "reloading" | "refreshing" => State::Running,
        "activating" => State::Starting,
        "failed" => State::Failed,
        "inactive" | "deactivating" | "maintenance" => State::Stopped,
        _ => return Err(format!("systemctl says nothing of {unit} that can be understood: {:?}", domain::text::clean_line(text, 200))),
    };
    let pid = field("MainPID").parse().ok().filter(|pid| *pid > 0);
    let restarts: Option<u64> = field("NRestarts").parse().ok();
    let mut summary = format!("{unit}: {active} ({sub})");
    if let Some(pid) = pid {
        summary.push_str(&format!(", process {pid}"));
    }
    if let Some(restarts @ 1..) = restarts {
        summary.push_str(&format!(", restarted {restarts} times by systemd"));
    }
    Ok(Status {
        state,
        summary,
        pid,
        detail: json!({ "unit": unit, "active": active, "sub": sub, "restarts": restarts, "result": field("Result") }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str) -> Result<Unit, String> {
        let target = json!({"name": "api", "kind": "systemd", "unit": name});
        Unit::of(&serde_json::from_value(target).unwrap())
    }

    #[test]
    fn a_unit_is_a_name_and_nothing_else() {
        assert_eq!(unit("nginx").unwrap().0, "nginx.service");
        assert_eq!(unit("getty@tty1.service").unwrap().0, "getty@tty1.service");
        assert_eq!(unit(r"dev-disk-by\x2dlabel.mount").unwrap().0, r"dev-disk-by\x2dlabel.mount");
        for name in ["", "-f", ".", "a b", "a;b", "a\nb", "../etc/x.service", "/etc/x.service", "$(id)", "a*", "é"] {
            assert!(unit(name).unwrap_err().contains("no name of a unit"), "{name}");
        }
    }

    #[test]
    fn what_systemctl_prints_is_read() {
        let status = |text: &str| read("api.service", text);
        let up = status("MainPID=812\nNRestarts=2\nResult=success\nLoadState=loaded\nActiveState=active\nSubState=running\n").unwrap();
        assert_eq!((up.state, up.pid), (State::Running, Some(812)));
        assert_eq!(up.summary, "api.service: active (running), process 812, restarted 2 times by systemd");
        let state =
            |active: &str| status(&format!("MainPID=0\nLoadState=loaded\nActiveState={active}\nSubState=x\n")).map(|status| status.state);
        assert_eq!(state("activating"), Ok(State::Starting));
        assert_eq!(state("failed"), Ok(State::Failed));
        assert_eq!(state("inactive"), Ok(State::Stopped));
        assert!(state("odd").unwrap_err().contains("can be understood"));
        assert!(status("LoadState=not-found\nActiveState=inactive\n").unwrap_err().contains("knows no unit"));
        assert!(status("").is_err());
    }
}
