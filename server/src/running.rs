//! A running server: its address, who signs in first, and its stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use actions::Supervisor;
use anyhow::Context;
use domain::time::{Clock, SystemClock};
use handlers::Wake;
use secrecy::ExposeSecret;
use store::Store;
use tokio::task::JoinHandle;
use webhook_gateway::LoginLinks;

use crate::audit::Sealer;
use crate::lifecycle::{Stop, on_hangup};
use crate::reload::{Reloader, watch};

/// A running server.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) https: bool,
    pub(crate) public_url: String,
    pub(crate) links: LoginLinks,
    pub(crate) supervisor: Arc<Supervisor>,
    pub(crate) stop: Stop,
    pub(crate) wake: Arc<Wake>,
    pub(crate) reloader: Arc<Reloader>,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) store: Store,
    pub(crate) tasks: Vec<JoinHandle<()>>,
}

impl Running {
    /// The address that it listens on, as a URL.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Its store.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Makes sign-in links.
    pub(crate) fn login_links(&self) -> &LoginLinks {
        &self.links
    }

    /// Kills a supervised target, as a crash would: for the demo.
    ///
    /// # Errors
    /// If it does not run.
    pub(crate) async fn kill_target(&self, name: &str) -> anyhow::Result<()> {
        let rules = self.reloader.rules();
        let target = rules.targets.get(name).with_context(|| format!("there is no target {name:?}"))?;
        let pid = self.supervisor.status(target).await?.pid.context("it does not run")?;
        let pid = rustix::process::Pid::from_raw(pid).context("it has no process")?;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        Ok(())
    }

    /// From now on SIGHUP, `POST /-/reload` and a change of the files read the configuration again.
    ///
    /// # Errors
    /// If the signal cannot be listened for.
    pub(crate) fn reload_from(&self, path: PathBuf) -> anyhow::Result<()> {
        self.reloader.set_path(path.clone());
        let reloader = Arc::clone(&self.reloader);
        on_hangup(move || {
            let reloader = Arc::clone(&reloader);
            tokio::spawn(async move { drop(reloader.reload().await) });
        })?;
        tokio::spawn(watch(Arc::clone(&self.reloader), path, self.stop.soft.clone()));
        Ok(())
    }

    /// Tells how to sign in for the first time, on the terminal alone: the link is a secret.
    ///
    /// # Errors
    /// If the store cannot be asked.
    pub(crate) async fn first_login(&self) -> anyhow::Result<()> {
        const TOLD: &str = "first_login.told";
        let mut tx = self.store.begin().await?;
        if tx.flag(TOLD).await?.is_some() {
            return Ok(());
        }
        let rules = self.reloader.rules();
        let admin = |person: &&domain::permission::Principal| person.human && rules.people.has(person, domain::permission::Right::Admin);
        let Some(person) = rules.people.principals.values().find(admin) else {
            tracing::warn!(
                "nobody has the right `admin`: give somebody the role under `principals`, then run `watchkeeper login-link NAME`"
            );
            return Ok(());
        };
        let token = self.links.mint(&person.name, SystemClock.now(), jiff::SignedDuration::from_hours(1))?;
        tx.set_flag(TOLD, &serde_json::json!(true)).await?;
        tx.commit().await?;
        let text = format!(
            "First start: {} signs in here within an hour, once:\n  {}/login?token={}",
            person.name,
            self.public_url,
            token.expose_secret()
        );
        crate::cmd::tell(&text);
        Ok(())
    }

    /// Ends the supervised children too: for the demo. A server that is stopped leaves them running, and its successor adopts them.
    pub(crate) async fn stop_children(&self) {
        if let Err(error) = self.supervisor.stop_all().await {
            tracing::warn!(%error, "a supervised child could not be stopped");
        }
    }

    /// Stops softly, then waits for the tasks.
    pub(crate) async fn stop(self) {
        self.stop.soft.cancel();
        self.wake.stop();
        for task in self.tasks {
            tokio::select! {
                ended = task => if let Err(error) = ended { tracing::error!(%error, "a task ended badly") },
                () = self.stop.hard.cancelled() => break,
            }
        }
        self.sealer.finish().await;
        self.store.close().await;
    }
}
