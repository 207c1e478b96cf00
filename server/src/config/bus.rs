//! `nats`: where the bus is, and which of its messages are events of which source.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use domain::rules::problem::suggest;
use domain::rules::tree::Node;
use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;
use webhook_gateway::SourceTable;
use webhook_gateway::sources::generic::GenericMap;

use super::one_or_many::OneOrMany;
use super::part::Sections;

/// Where the bus is and what it brings.
#[derive(Clone, Debug)]
pub(crate) struct NatsConfig {
    /// `nats://host:4222`, one or more of a cluster.
    pub(crate) urls: Vec<String>,
    /// A credentials file of NATS.
    pub(crate) credentials: Option<PathBuf>,
    /// The subscriptions, by source name.
    pub(crate) subscriptions: BTreeMap<String, Subscription>,
}

/// Which messages are events of a source.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    /// The JetStream stream.
    pub(crate) stream: String,
    /// Subjects, with wildcards.
    pub(crate) subjects: Vec<String>,
    /// The durable consumer's name.
    pub(crate) durable: String,
    /// How a message's JSON becomes alerts.
    pub(crate) map: Arc<GenericMap>,
}

/// NATS JetStream, 2.10 or newer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    /// `nats://HOST:4222` or `tls://HOST:4222`; a list for a cluster.
    url: OneOrMany<String>,
    /// A credentials file, as `nsc` and `nats` make them.
    #[serde(default)]
    credentials_file: Option<PathBuf>,
    /// Which messages are events, by the name of the source (of kind `generic`) whose `map` reads them.
    #[serde(default)]
    subscriptions: BTreeMap<String, WrittenSubscription>,
}

/// Which messages are events of a source.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenSubscription {
    /// The stream that keeps them.
    stream: String,
    /// One subject or several; `*` and `>` as in NATS.
    subjects: OneOrMany<String>,
    /// The durable consumer's name. Default: `watchkeeper-` and the source's name.
    #[serde(default)]
    durable: Option<String>,
}

/// The section before the sources are known.
pub(super) struct NatsDraft {
    node: Node,
    written: Written,
}

impl NatsConfig {
    pub(super) fn read(cx: &mut Sections<'_, '_, '_>) -> Option<NatsDraft> {
        let (node, written) = cx.value::<Written>("nats")?;
        let good = |url: &String| Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "nats" | "tls" | "ws" | "wss") && url.has_host());
        if written.url.0.is_empty() || !written.url.0.iter().all(good) {
            let help = "write nats://HOST:4222, or tls://HOST:4222".to_owned();
            cx.report().add(node.find(&["url"]).at, "this is no address of a NATS server", help);
        }
        for (source, subscription) in &written.subscriptions {
            let node = node.find(&["subscriptions", source]);
            token(cx, node.find(&["stream"]), &subscription.stream);
            if let Some(durable) = &subscription.durable {
                token(cx, node.find(&["durable"]), durable);
            }
            if subscription.subjects.0.is_empty() || subscription.subjects.0.iter().any(|subject| !is_subject(subject)) {
                let help = "words with dots between them; `*` stands for one word, `>` at the end for all that follow".to_owned();
                cx.report().add(node.find(&["subjects"]).at, "this is no NATS subject", help);
            }
        }
        Some(NatsDraft { node, written })
    }
}

impl NatsDraft {
    pub(super) fn feeds(&self, source: &str) -> bool {
        self.written.subscriptions.contains_key(source)
    }

    /// Finds the mapping of every subscription.
    pub(super) fn joined(self, cx: &mut Sections<'_, '_, '_>, sources: &SourceTable) -> NatsConfig {
        let Self { node, written } = self;
        let declared =
            cx.written("sources").map(|node| node.entries().iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()).unwrap_or_default();
        let mut subscriptions = BTreeMap::new();
        for (source, subscription) in written.subscriptions {
            let at = node.find(&["subscriptions", &source]).name_at();
            if !declared.contains(&source) {
                let help = suggest(&source, declared.iter().map(String::as_str), "add it under `sources:`, of kind generic");
                cx.report().add(at, format!("there is no source `{source}`"), help);
                continue;
            }
            // One with mistakes of its own is not in the table.
            let Some(settings) = sources.get(&source) else { continue };
            let Some(map) = settings.map.clone() else {
                let help = "messages of the bus are mapped by the `map` of a source of kind generic".to_owned();
                cx.report().add(at, format!("the source `{source}` has no `map`"), help);
                continue;
            };
            let durable = subscription.durable.unwrap_or_else(|| format!("watchkeeper-{}", source.replace('.', "-")));
            subscriptions.insert(source, Subscription { stream: subscription.stream, subjects: subscription.subjects.0, durable, map });
        }
        NatsConfig { urls: written.url.0, credentials: written.credentials_file.map(|path| cx.base.join(path)), subscriptions }
    }
}

fn token(cx: &mut Sections<'_, '_, '_>, node: &Node, name: &str) {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > 100 || !name.chars().all(good) {
        let help = "use letters, digits, `-` and `_`".to_owned();
        cx.report().add(node.at, format!("{name:?} cannot be the name of a stream or consumer"), help);
    }
}

fn is_subject(subject: &str) -> bool {
    let words: Vec<&str> = subject.split('.').collect();
    let last = words.len() - 1;
    let good = |word: &str| !word.is_empty() && word.chars().all(|c| !c.is_whitespace() && !c.is_control() && !matches!(c, '*' | '>'));
    words.iter().enumerate().all(|(index, word)| *word == "*" || (*word == ">" && index == last) || good(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects() {
        for subject in ["task.created", "task.*.failed", "task.>", ">", "a"] {
            assert!(is_subject(subject), "{subject}");
        }
        for subject in ["", "task.", ".task", "task created", ">.task", "ta*k", "task>"] {
            assert!(!is_subject(subject), "{subject}");
        }
    }
}
