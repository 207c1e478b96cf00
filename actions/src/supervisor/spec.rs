//! How a target of kind `process` is run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use domain::duration::Dur;
use domain::plan::Target;
use serde::Deserialize;
use serde_json::Value;

/// The fields of the inventory that say how to run it. They are the configuration's own words, never a label's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Spec {
    /// Absolute path.
    pub program: PathBuf,
    /// Its arguments, options included.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its environment, besides PATH and LANG. Nothing of the server's own gets there.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where it runs; `/` by default.
    pub cwd: Option<PathBuf>,
    /// Between TERM and KILL; 10s by default.
    pub grace: Option<Dur>,
    /// Start it again when it ends by itself, after 1 s at first and ever less often. Otherwise its end is only seen.
    #[serde(default)]
    pub respawn: bool,
}

impl Spec {
    /// Reads a target; fields for other purposes are left alone.
    pub(super) fn of(target: &Target) -> Result<Spec, String> {
        if target.kind != "process" {
            return Err(format!("it is a {}, not a process", target.kind));
        }
        let fields = target.fields.clone().into_iter().collect();
        let spec: Spec = serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string())?;
        if !spec.program.is_absolute() || spec.cwd.as_ref().is_some_and(|cwd| !cwd.is_absolute()) {
            return Err("`program` and `cwd` must be absolute paths".to_owned());
        }
        let nul = |text: &String| text.contains('\0');
        if spec.args.iter().any(nul)
            || spec.env.iter().any(|(name, value)| nul(name) || nul(value) || name.is_empty() || name.contains('='))
        {
            return Err("`args` and `env` must hold no NUL, and names no `=`".to_owned());
        }
        Ok(spec)
    }

    pub(super) fn grace(&self) -> Duration {
        self.grace.map_or(Duration::from_secs(10), Dur::as_std)
    }
}
