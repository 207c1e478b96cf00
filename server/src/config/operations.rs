//! `heartbeat`, `log` and `telemetry`: how the server is watched.

use domain::duration::Dur;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

use super::part::Sections;
use super::server::web_url;

/// Our own sign of life.
#[derive(Clone, Debug)]
pub(crate) struct HeartbeatConfig {
    /// What is called. A secret: there is mostly a token in it.
    pub(crate) url: SecretString,
    /// How often.
    pub(crate) every: Dur,
}

/// How the audit log is kept.
#[derive(Clone, Debug)]
pub(crate) struct AuditConfig {
    /// How often a signed checkpoint says where its chain stands, while there is something new.
    pub(crate) checkpoint_every: Dur,
}

/// How logs look.
#[derive(Clone, Debug)]
pub(crate) struct LogConfig {
    /// The form.
    pub(crate) format: LogFormat,
    /// `info`, or a filter such as `info,store=debug`.
    pub(crate) level: String,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// JSON, unless the error stream is a terminal.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Who may read the metrics.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TelemetryConfig {
    /// If set, `/metrics` wants it as a bearer token.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(crate) metrics_token: Option<SecretString>,
}

/// A call to an address outside, which raises the alarm when the calls stop.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenHeartbeat {
    /// What to call, by POST.
    url: String,
    /// How often. Default 1m.
    #[serde(default)]
    every: Option<Dur>,
}

/// How the audit log is kept.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenAudit {
    /// How often a signed checkpoint says where the log's chain stands, while there is something new. Default 1m.
    #[serde(default)]
    checkpoint_every: Option<Dur>,
}

/// How logs look.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenLog {
    /// Default `auto`.
    #[serde(default)]
    format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,store=debug`. Default `info`.
    #[serde(default)]
    level: Option<String>,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { checkpoint_every: Dur::from_mins(1) }
    }
}

impl AuditConfig {
    pub(super) fn read(cx: &mut Sections<'_, '_, '_>) -> Self {
        let Some((node, written)) = cx.value::<WrittenAudit>("audit") else { return Self::default() };
        let every = written.checkpoint_every.unwrap_or(Self::default().checkpoint_every);
        if every < Dur::from_secs(1) {
            cx.report().add(node.find(&["checkpoint_every"]).at, "a checkpoint more often than every 1s helps nobody", None);
        }
        Self { checkpoint_every: every }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".to_owned() }
    }
}

impl HeartbeatConfig {
    pub(super) fn read(cx: &mut Sections<'_, '_, '_>) -> Option<Self> {
        let (node, written) = cx.value::<WrittenHeartbeat>("heartbeat")?;
        web_url(cx, &node, "url", &written.url);
        let every = written.every.unwrap_or(Dur::from_mins(1));
        if every < Dur::from_secs(5) {
            cx.report().add(node.find(&["every"]).at, "a sign of life more often than every 5s helps nobody", None);
        }
        Some(Self { url: written.url.into(), every })
    }
}

impl LogConfig {
    pub(super) fn read(cx: &mut Sections<'_, '_, '_>) -> Self {
        let Some((node, written)) = cx.value::<WrittenLog>("log") else { return Self::default() };
        let level = written.level.unwrap_or_else(|| Self::default().level);
        if EnvFilter::try_new(&level).is_err() {
            let help = "write error, warn, info, debug or trace, or a filter such as info,store=debug".to_owned();
            cx.report().add(node.find(&["level"]).at, format!("{level:?} is no level of logs"), help);
        }
        Self { format: written.format, level }
    }
}

impl TelemetryConfig {
    pub(super) fn read(cx: &mut Sections<'_, '_, '_>) -> Self {
        cx.value("telemetry").map(|(_, written)| written).unwrap_or_default()
    }
}
