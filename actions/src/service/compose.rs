//! Services of Docker Compose, by `docker compose`.

use std::path::Path;
use std::time::Duration;

use domain::action::{ActionCx, ActionError};
use domain::plan::Target;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{State, Status, ask, tell};
use crate::Tools;

/// A service of a Compose file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Service {
    file: String,
    /// Where the file's own project name is not the one in use.
    project: Option<String>,
    name: String,
}

/// One container, in the fields of `docker compose ps --format json` that matter here.
#[derive(Debug, Deserialize, Serialize)]
struct Container {
    #[serde(rename(deserialize = "Name"), default)]
    name: String,
    #[serde(rename(deserialize = "Service"), default)]
    service: String,
    /// `created`, `running`, `restarting`, `paused`, `removing`, `exited`, `dead`.
    #[serde(rename(deserialize = "State"), default)]
    state: String,
    /// Empty without a health check; else `starting`, `healthy`, `unhealthy`.
    #[serde(rename(deserialize = "Health"), default)]
    health: String,
    #[serde(rename(deserialize = "ExitCode"), default)]
    exit_code: i64,
    /// For people: `Up 2 hours (healthy)`.
    #[serde(rename(deserialize = "Status"), default)]
    status: String,
}

impl Service {
    pub(super) fn of(target: &Target) -> Result<Service, String> {
        let field = |name: &str| target.text(name).ok_or_else(|| format!("target {:?} lacks `{name}`", target.name));
        let (file, name, project) = (field("file")?, field("service")?, target.text("project"));
        if !Path::new(file).is_absolute() || file.chars().any(char::is_control) {
            return Err(format!("target {:?}: `file` must be an absolute path", target.name));
        }
        for word in [Some(name), project].into_iter().flatten() {
            let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if word.is_empty() || word.len() > 100 || !word.starts_with(|c: char| c.is_ascii_alphanumeric()) || !word.chars().all(fits) {
                return Err(format!("target {:?}: {word:?} is no name of a Compose service or project", target.name));
            }
        }
        Ok(Service { file: file.to_owned(), project: project.map(str::to_owned), name: name.to_owned() })
    }

    pub(super) async fn restart(&self, tools: &Tools, cx: &ActionCx) -> Result<(String, Value), ActionError> {
        let said = tell(tools, &tools.settings.docker, self.args(&["restart", &self.name]), cx).await?;
        match said.ok {
            true => Ok((format!("{} restarted", self.name), json!({ "service": self.name, "file": self.file }))),
            false => Err(ActionError::Failed(said.problem)),
        }
    }

    pub(super) async fn status(&self, tools: &Tools, limit: Duration) -> Result<Status, ActionError> {
        // Without --all a container that has ended would look like none.
        let args = self.args(&["ps", "--all", "--format", "json", &self.name]);
        let said = ask(tools, &tools.settings.docker, args, limit).await?;
        if !said.ok {
            return Err(ActionError::Failed(said.problem));
        }
        let containers = read(&said.stdout).map_err(|problem| ActionError::Failed(format!("docker compose ps: {problem}")))?;
        Ok(judge(&self.name, &containers))
    }

    fn args(&self, what: &[&str]) -> Vec<String> {
        let mut args = vec!["compose", "-f", &self.file];
        if let Some(project) = &self.project {
            args.extend(["-p", project]);
        }
        args.extend(what);
        args.into_iter().map(str::to_owned).collect()
    }
}

/// One object per line since Compose 2.21, one array before.
fn read(text: &str) -> Result<Vec<Container>, String> {
    let wrong = |error: serde_json::Error| format!("its answer cannot be read: {error}");
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).map_err(wrong);
    }
    text.lines().filter(|line| !line.trim().is_empty()).map(|line| serde_json::from_str(line).map_err(wrong)).collect()
}

/// All of them must run; the worst decides.
fn judge(name: &str, containers: &[Container]) -> Status {
    let state = |container: &Container| match (container.state.as_str(), container.health.as_str()) {
        ("running", "unhealthy") => State::Failed,
        ("running", "starting") => State::Starting,
        ("running", _) => State::Running,
        ("restarting" | "created", _) => State::Starting,
        ("exited", _) if container.exit_code == 0 => State::Stopped,
        ("exited" | "dead", _) => State::Failed,
        _ => State::Stopped,
    };
    let worst = [State::Failed, State::Stopped, State::Starting, State::Running];
    let state = worst.into_iter().find(|one| containers.iter().any(|container| state(container) == *one)).unwrap_or(State::Stopped);
    let say = |container: &Container| {
        let words = if container.status.is_empty() { &container.state } else { &container.status };
        format!("{} {words}", container.name)
    };
    let lines: Vec<String> = containers.iter().take(10).map(say).collect();
    let summary = if lines.is_empty() { format!("{name}: no container") } else { format!("{name}: {}", lines.join("; ")) };
    Status { state, summary: domain::text::clean_line(&summary, 500), pid: None, detail: json!({ "containers": containers }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(fields: Value) -> Result<Service, String> {
        let mut target = json!({"name": "api", "kind": "compose"});
        target.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        Service::of(&serde_json::from_value(target).unwrap())
    }

    #[test]
    fn names_are_names() {
        assert!(service(json!({"file": "/srv/app.yml", "service": "api-1.x", "project": "shop"})).is_ok());
        for fields in [
            json!({"service": "api"}),
            json!({"file": "/x"}),
            json!({"file": "x.yml", "service": "api"}),
            json!({"file": "/x\n", "service": "api"}),
            json!({"file": "/x", "service": "-f"}),
            json!({"file": "/x", "service": "a b"}),
            json!({"file": "/x", "service": "$(id)"}),
            json!({"file": "/x", "service": "../a"}),
            json!({"file": "/x", "service": "api", "project": "--all"}),
        ] {
            assert!(service(fields.clone()).unwrap_err().contains("\"api\""), "{fields}");
        }
    }

    /// In the form of Compose 2.38 and of Compose before 2.21.
    #[test]
    fn both_forms_of_ps_are_read() {
        let line = r#"{"Command":"\"/api\"","CreatedAt":"2026-09-26 16:06:45 +0000 UTC","ExitCode":0,"Health":"healthy","ID":"cda25c4a11fd","Name":"shop-api-1","Publishers":null,"Service":"api","State":"running","Status":"Up 2 hours (healthy)"}"#;
        let dead = line
            .replace("\"running\"", "\"exited\"")
            .replace("\"ExitCode\":0", "\"ExitCode\":137")
            .replace("Up 2 hours (healthy)", "Exited (137) 3 seconds ago");
        let status = |text: &str| judge("api", &read(text).unwrap());
        assert_eq!(status(line).state, State::Running);
        assert_eq!(status(line).summary, "api: shop-api-1 Up 2 hours (healthy)");
        assert_eq!(status(&format!("{line}\n{dead}\n")).state, State::Failed);
        assert_eq!(status(&format!("[{line},{line}]")).state, State::Running);
        assert_eq!(status(&line.replace("\"healthy\"", "\"unhealthy\"")).state, State::Failed);
        assert_eq!(status(&line.replace("\"healthy\"", "\"starting\"")).state, State::Starting);
        for none in ["", "\n", "[]"] {
            assert_eq!((status(none).state, status(none).summary.as_str()), (State::Stopped, "api: no container"));
        }
        assert!(read("no such service: api").is_err());
    }
}
