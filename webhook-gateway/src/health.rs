//! What `/readyz` and `/health` ask of the rest of the process.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Asks every dependency how it is. Implemented by `server`, which knows them all.
#[async_trait]
pub trait HealthProbe: Send + Sync {
    /// One entry per dependency, in a fixed order. Should answer within a second: it is asked often.
    async fn checks(&self) -> Vec<Check>;

    /// Brings the gauges of what waits up to date. `/metrics` asks for it, so that they hold where nobody asks for health.
    async fn measure(&self);
}

/// How one dependency is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// `store`, `queue`, `slack`, ...
    pub name: String,
    /// Without it no event can be kept: the process is unready. Otherwise it is merely degraded.
    pub critical: bool,
    /// Whether it works.
    pub ok: bool,
    /// What is wrong and what to do, or what kind of durability holds. No secrets: everybody may read it.
    pub detail: String,
}

/// The whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Everything works.
    Healthy,
    /// Something that is not critical does not.
    Degraded,
    /// Something critical does not.
    Unhealthy,
}

/// A probe that takes longer than this counts as failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// All checks, bounded in time.
pub(crate) async fn ask(probe: &dyn HealthProbe, patience: Duration) -> Vec<Check> {
    tokio::time::timeout(patience, probe.checks()).await.unwrap_or_else(|_| {
        let detail = format!("no answer within {patience:?}; the store is the usual cause");
        vec![Check { name: "probe".to_owned(), critical: true, ok: false, detail }]
    })
}

/// The worst of the checks.
pub(crate) fn overall(checks: &[Check]) -> Health {
    let failed = |critical: bool| checks.iter().any(|check| !check.ok && check.critical == critical);
    match (failed(true), failed(false)) {
        (true, _) => Health::Unhealthy,
        (false, true) => Health::Degraded,
        (false, false) => Health::Healthy,
    }
}

/// The document of `/health`: `{status, version, timestamp, checks{}, uptime}`; `uptime` in seconds.
pub(crate) fn document(checks: &[Check], version: &str, now: Timestamp, uptime: Duration) -> Value {
    let entry = |check: &Check| {
        let status = if check.ok { "healthy" } else { "unhealthy" };
        (check.name.clone(), json!({"status": status, "critical": check.critical, "detail": check.detail}))
    };
    let entries: Map<String, Value> = checks.iter().map(entry).collect();
    json!({"status": overall(checks), "version": version, "timestamp": now, "checks": entries, "uptime": uptime.as_secs()})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(critical: bool, ok: bool) -> Check {
        Check { name: format!("{critical}{ok}"), critical, ok, detail: String::new() }
    }

    #[test]
    fn the_worst_check_decides() {
        assert_eq!(overall(&[]), Health::Healthy);
        assert_eq!(overall(&[check(true, true), check(false, true)]), Health::Healthy);
        assert_eq!(overall(&[check(true, true), check(false, false)]), Health::Degraded);
        assert_eq!(overall(&[check(true, false), check(false, false)]), Health::Unhealthy);
    }

    #[tokio::test]
    async fn a_probe_that_hangs_is_a_failed_one() {
        struct Hangs;
        #[async_trait]
        impl HealthProbe for Hangs {
            async fn checks(&self) -> Vec<Check> {
                std::future::pending().await
            }

            async fn measure(&self) {}
        }
        assert_eq!(overall(&ask(&Hangs, Duration::from_millis(20)).await), Health::Unhealthy);
    }
}
