//! `programs`, `egress` and `tools`: what actions may run and reach.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use actions::egress::Exception;
use actions::{Executions, Library, Settings, Supervisor};
use anyhow::Context;
use domain::redact::Redactor;
use domain::time::SystemClock;
use schemars::JsonSchema;
use serde::Deserialize;

use super::part::Sections;

/// What actions may run and reach.
#[derive(Clone, Debug)]
pub(crate) struct ActionsConfig {
    /// The programs that `command` may run, by absolute path.
    pub(crate) programs: BTreeSet<PathBuf>,
    /// Where `systemctl` is.
    pub(crate) systemctl: PathBuf,
    /// Where `docker`, with its Compose plug-in, is.
    pub(crate) docker: PathBuf,
    /// Where requests may go beyond public addresses on ports 80 and 443.
    pub(crate) egress: Vec<Exception>,
}

/// Where the programs are that actions use by themselves.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenTools {
    /// Default /usr/bin/systemctl.
    #[serde(default)]
    systemctl: Option<PathBuf>,
    /// Default /usr/bin/docker.
    #[serde(default)]
    docker: Option<PathBuf>,
}

impl Default for ActionsConfig {
    fn default() -> Self {
        Self { programs: BTreeSet::new(), systemctl: "/usr/bin/systemctl".into(), docker: "/usr/bin/docker".into(), egress: Vec::new() }
    }
}

impl ActionsConfig {
    pub(super) fn read(cx: &mut Sections<'_, '_, '_>) -> Self {
        let mut config = Self::default();
        if let Some((node, programs)) = cx.value::<Vec<PathBuf>>("programs") {
            for (program, node) in programs.iter().zip(node.items()) {
                if !program.is_absolute() {
                    let help = "write the whole path: nothing is looked up in PATH".to_owned();
                    cx.report().add(node.at, format!("`{}` is no absolute path", program.display()), help);
                }
            }
            config.programs = programs.into_iter().collect();
        }
        if let Some((_, egress)) = cx.value("egress") {
            config.egress = egress;
        }
        if let Some((node, tools)) = cx.value::<WrittenTools>("tools") {
            for (key, written, place) in
                [("systemctl", tools.systemctl, &mut config.systemctl), ("docker", tools.docker, &mut config.docker)]
            {
                let Some(path) = written else { continue };
                if !path.is_absolute() {
                    cx.report().add(node.find(&[key]).at, format!("`{}` is no absolute path", path.display()), None);
                }
                *place = path;
            }
        }
        config
    }
}

/// The real actions, to check runbooks with: it has children of nobody and no secrets, and nothing is carried out with it.
///
/// # Errors
/// If no temporary folder can be made.
pub(crate) fn library_for_checks(config: &ActionsConfig) -> anyhow::Result<Library> {
    let folder = tempfile::tempdir().context("a temporary folder is needed")?;
    // A thread of its own, since this may be called from within a runtime.
    let open = || -> anyhow::Result<Supervisor> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(Supervisor::open(folder.path()))?)
    };
    let opened = std::thread::scope(|scope| scope.spawn(open).join());
    let supervisor = opened.map_err(|_| anyhow::anyhow!("the supervisor's folder could not be opened"))??;
    let executions = Executions::open(&folder.path().join("executions"), vec![])?;
    Ok(Library::new(Settings {
        programs: config.programs.clone(),
        systemctl: config.systemctl.clone(),
        docker: config.docker.clone(),
        egress: config.egress.clone(),
        executions: Arc::new(executions),
        supervisor: Arc::new(supervisor),
        clock: Arc::new(SystemClock),
        redactor: Arc::new(Redactor::detectors_only()),
    }))
}
