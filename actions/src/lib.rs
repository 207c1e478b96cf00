//! The action library: what remedies are made of. One file per action and one line in the list below; each works on a real system and
//! knows nothing of store or chat.

mod argv;
mod cgroup;
pub mod egress;
mod executions;
mod folders;
mod health;
mod http;
mod live;
mod look;
mod output;
mod params;
mod proc;
mod program;
mod service;
pub mod shim;
mod shims;
pub mod supervisor;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::action::{Action, ActionCatalogue, ActionCx};
use domain::duration::Dur;
use domain::redact::Redactor;
use domain::time::Clock;

use egress::{Egress, Exception};
pub use executions::Executions;
pub use program::ENVIRONMENT;
pub use supervisor::Supervisor;

/// Declares the action files and makes the table of them.
macro_rules! actions {
    ($($file:ident),* $(,)?) => {
        $(mod $file;)*

        fn table(tools: &Arc<Tools>) -> Vec<Box<dyn Action>> {
            vec![$($file::action(tools.clone())),*]
        }
    };
}

actions! {
    collect_bundle,
    command,
    http_check,
    http_request,
    notify,
    service_restart,
    service_status,
    wait,
}

/// What the configuration lets actions do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The programs that `command` may run, by absolute path.
    pub programs: BTreeSet<PathBuf>,
    /// Where `systemctl` is.
    pub systemctl: PathBuf,
    /// Where `docker`, with its Compose plug-in, is.
    pub docker: PathBuf,
    /// Where requests may go beyond public addresses on ports 80 and 443. Loopback is not among those.
    pub egress: Vec<Exception>,
    /// Runs the commands that outlive the server.
    pub executions: Arc<Executions>,
    /// Runs the targets of kind `process`.
    pub supervisor: Arc<Supervisor>,
    /// Tells how far a step's deadline is.
    pub clock: Arc<dyn Clock>,
    /// Keeps secrets out of everything that actions return.
    pub redactor: Arc<Redactor>,
}

/// All actions, ready to use.
pub struct Library {
    actions: BTreeMap<&'static str, Box<dyn Action>>,
    executions: Arc<Executions>,
}

impl Library {
    /// Makes every action with these settings.
    pub fn new(settings: Settings) -> Library {
        let egress = Egress::new(settings.egress.clone());
        let executions = Arc::clone(&settings.executions);
        let tools = Arc::new(Tools { settings, egress });
        Library { actions: table(&tools).into_iter().map(|action| (action.name(), action)).collect(), executions }
    }
}

impl ActionCatalogue for Library {
    fn get(&self, name: &str) -> Option<&dyn Action> {
        self.actions.get(name).map(AsRef::as_ref)
    }

    fn all(&self) -> Vec<&dyn Action> {
        self.actions.values().map(AsRef::as_ref).collect()
    }

    fn kept(&self) -> Vec<String> {
        self.executions.kept()
    }

    fn forget(&self, execution: &str) {
        self.executions.forget(execution);
    }

    fn give_up(&self, execution: &str) {
        self.executions.give_up(execution);
    }
}

/// What actions work with.
struct Tools {
    settings: Settings,
    egress: Egress,
}

impl Tools {
    fn redact(&self, text: &str) -> String {
        self.settings.redactor.redact(text).into_owned()
    }

    /// What is left until the attempt's deadline.
    fn time_left(&self, cx: &ActionCx) -> Duration {
        Dur::between(self.settings.clock.now(), cx.deadline).as_std()
    }

    /// `limit`, or what is left if that is less.
    fn time_limit(&self, cx: &ActionCx, limit: Duration) -> Duration {
        limit.min(self.time_left(cx))
    }
}
