//! The clock was set back: whatever was put off while it was ahead would wait for as long as it was ahead, and is brought forward.
//!
//! Nothing is lost or done twice by that. A job that comes early looks whether it is time, as every job does, and says when to look again.

use std::time::{Duration, Instant};

use domain::duration::Dur;
use jiff::{SignedDuration, Timestamp};
use store::Backend;

use crate::Cx;
use crate::jobs::upkeep;
use crate::worker::LONGEST_PAUSE;

/// How often the clock is compared with the one that nobody can set.
const LOOK: Duration = Duration::from_secs(1);
/// A smaller difference is a clock that is kept right.
const STEP: SignedDuration = SignedDuration::from_secs(5);

/// Looks whether the clock was set, until the worker stops.
pub(crate) async fn watch(cx: Cx) {
    // One that moves only when told stands still by the other.
    if cx.clock.is_manual() {
        return;
    }
    let mut seen = (Instant::now(), cx.clock.now());
    let mut back = SignedDuration::ZERO;
    while !cx.wake.stopping() {
        tokio::select! { () = tokio::time::sleep(LOOK) => {}, () = cx.wake.stopped() => return }
        let looked = (Instant::now(), cx.clock.now());
        // Who was stopped between the two does not know what belongs together.
        if looked.0.elapsed() > LOOK {
            continue;
        }
        let by = step(seen, looked);
        seen = looked;
        if by.abs() > STEP {
            if cx.store.backend() == Backend::Sqlite {
                // Of PostgreSQL's clock the store tells.
                tracing::warn!(by = human(by), back = by.is_negative(), "the clock was set, or this machine slept: what is due follows it");
                metrics::counter!("watchkeeper_clock_steps_total").increment(1);
            }
            if by.is_negative() {
                cx.wake.pace.forget();
                back += by.abs();
            }
        } else if !back.is_zero() {
            // A look later, so that what was being put off by the clock as it was is stored by now.
            match bring_forward(&cx, back).await {
                Ok(()) => back = SignedDuration::ZERO,
                Err(error) => tracing::warn!(%error, "what was put off before the clock was set back waits: again in a moment"),
            }
        }
    }
}

/// The same for a clock that was set back while no server ran. No event was heard at a time that is still to come, and upkeep is always due within a moment: if it
/// is not so, there was another clock.
pub(crate) async fn since_last_start(cx: &Cx) -> Result<(), store::Error> {
    let mut tx = cx.store.read().await?;
    let put_off = tx.job_due(upkeep::KIND, upkeep::KIND).await?.map(|due| due - upkeep::EVERY);
    let latest = put_off.max(tx.last_heard().await?);
    drop(tx);
    match latest.map(|at| at.duration_since(cx.clock.now())) {
        Some(by) if by > LONGEST_PAUSE => bring_forward(cx, by).await,
        _ => Ok(()),
    }
}

async fn bring_forward(cx: &Cx, by: SignedDuration) -> Result<(), store::Error> {
    let jobs = cx.store.bring_forward(by).await?;
    tracing::warn!(by = human(by), jobs, "the clock was set back: what was put off while it was ahead is brought forward");
    Ok(())
}

fn human(span: SignedDuration) -> String {
    Dur::from_std(span.unsigned_abs()).human()
}

/// By how much the clock was set between two looks at both: ahead, or back if it is negative.
fn step((before, then): (Instant, Timestamp), (after, now): (Instant, Timestamp)) -> SignedDuration {
    let passed = SignedDuration::try_from(after.duration_since(before)).unwrap_or(SignedDuration::MAX);
    now.duration_since(then).saturating_sub(passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_what_the_other_clock_knows_nothing_of() {
        let (began, then) = (Instant::now(), Timestamp::from_second(1_800_000_000).unwrap());
        let after =
            |passed: u64, shown: i64| step((began, then), (began + Duration::from_secs(passed), then + SignedDuration::from_secs(shown)));
        assert_eq!(after(1, 1), SignedDuration::ZERO);
        assert_eq!(after(20, 20), SignedDuration::ZERO, "the process stood still");
        assert_eq!(after(1, 3601), SignedDuration::from_hours(1));
        assert_eq!(after(1, -3599), SignedDuration::from_hours(-1));
    }
}
