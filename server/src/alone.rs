//! What only one of all replicas may do at a time: it holds a lease, and stops before another may think it gone.

use std::time::{Duration, Instant};

use jiff::SignedDuration;
use store::Store;
use tokio_util::sync::CancellationToken;

/// How long a lease holds without renewal.
const LEASE: SignedDuration = SignedDuration::from_secs(15);
/// How long its holder trusts it without renewal.
const TRUSTED: Duration = Duration::from_secs(10);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(4);
/// How often the others ask for it.
const ASK: Duration = Duration::from_secs(1);

/// Does `work` whenever the lease `name` is ours, until `stop`. The work gets a token that says when to end.
pub(crate) async fn alone<F>(store: Store, name: &'static str, stop: CancellationToken, work: impl Fn(CancellationToken) -> F)
where
    F: Future<Output = ()>,
{
    while !stop.is_cancelled() {
        let asked = Instant::now();
        match store.take_lease(name, LEASE).await {
            Ok(Some(number)) => {
                tracing::info!(lease = name, number, "this replica holds the lease");
                let ours = stop.child_token();
                tokio::join!(
                    async {
                        work(ours.clone()).await;
                        ours.cancel();
                    },
                    renew(&store, name, asked, &ours)
                );
                if let Err(error) = store.release_lease(name).await {
                    tracing::debug!(%error, lease = name, "the lease was not given back: it lapses");
                }
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, lease = name, "the lease cannot be asked for"),
        }
        tokio::select! { () = tokio::time::sleep(ASK) => {}, () = stop.cancelled() => {} }
    }
}

/// Renews until the work ends, or ends the work when that fails for too long.
async fn renew(store: &Store, name: &'static str, mut renewed: Instant, ours: &CancellationToken) {
    loop {
        tokio::select! { () = tokio::time::sleep(RENEW) => {}, () = ours.cancelled() => return }
        let asked = Instant::now();
        let left = TRUSTED.saturating_sub(renewed.elapsed());
        let answer = tokio::time::timeout(left, store.take_lease(name, LEASE)).await;
        let lost = match answer {
            Ok(Ok(Some(_))) => {
                renewed = asked;
                false
            }
            Ok(Ok(None)) => true,
            Ok(Err(_)) | Err(_) => renewed.elapsed() + RENEW >= TRUSTED,
        };
        if lost {
            tracing::warn!(lease = name, "the lease could not be kept: another replica may have it");
            return ours.cancel();
        }
    }
}
