//! Start and stop: the first signal stops softly, the second at once.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long a soft stop may take before it becomes a hard one.
pub(crate) const SOFT: Duration = Duration::from_secs(20);

/// Two tokens: `soft` asks everything to finish what is at hand, `hard` ends it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    pub(crate) soft: CancellationToken,
    pub(crate) hard: CancellationToken,
}

impl Stop {
    /// Listens for SIGTERM and SIGINT.
    ///
    /// # Errors
    /// If the signals cannot be listened for.
    pub(crate) fn on_signals() -> anyhow::Result<Self> {
        let stop = Self::default();
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let tokens = stop.clone();
        tokio::spawn(async move {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            tracing::info!("stopping: finishing what is at hand; a second signal stops at once");
            tokens.soft.cancel();
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {}, () = tokio::time::sleep(SOFT) => {} }
            tokens.hard.cancel();
        });
        Ok(stop)
    }
}

/// Calls `reload` on every SIGHUP.
pub(crate) fn on_hangup(reload: impl Fn() + Send + 'static) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            reload();
        }
    });
    Ok(())
}
