//! Logs: one line each, JSON by default when nobody watches, control characters escaped, levels from the configuration.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogFormat;

/// Starts logging to the error stream. A second call changes nothing.
pub(crate) fn start(format: LogFormat, level: &str) {
    // Serenity tells of every shard at `info`; whoever wants that names it.
    let level = if level.contains("serenity") { level.to_owned() } else { format!("{level},serenity=warn") };
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let registry = tracing_subscriber::registry().with(filter);
    let started = if json {
        let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
        registry.with(layer).try_init()
    } else {
        let layer = tracing_subscriber::fmt::layer().with_target(false).with_writer(std::io::stderr);
        registry.with(layer).try_init()
    };
    // A second start in one process (the demo starts a server) keeps the first one's settings.
    drop(started);
}
