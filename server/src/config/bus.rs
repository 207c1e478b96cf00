//! `nats`: where the bus is, which of its messages are events of which source, and what it is told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use domain::rules::problem::suggest;
use domain::rules::tree::Node;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;
use webhook_gateway::SourceTable;
use webhook_gateway::sources::generic::GenericMap;

use super::link::{Kept, NatsLink, NatsTls, Proof, Told, address_problem, is_word};
use super::one_or_many::OneOrMany;
use super::part::Sections;

/// Where the bus is and what it brings.
#[derive(Clone, Debug)]
pub(crate) struct NatsConfig {
    /// How to reach it.
    pub(crate) link: NatsLink,
    /// The subscriptions, by source name.
    pub(crate) subscriptions: BTreeMap<String, Subscription>,
    /// Where lifecycle events go.
    pub(crate) publish: Option<Publish>,
    /// Where requests for runs come from.
    pub(crate) commands: Option<Commands>,
    /// Where deliveries of the HTTP sources are kept before they reach the store.
    pub(crate) ingest: Option<Ingest>,
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

/// Lifecycle events of incidents, runs and approvals, as CloudEvents on JetStream.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Publish {
    /// Subjects begin with this: PREFIX.incident.opened. Default: watchkeeper.
    #[serde(default = "prefix")]
    pub(crate) prefix: String,
    /// The stream that keeps them; made if it is not there. Default: WATCHKEEPER.
    #[serde(default = "lifecycle_stream")]
    pub(crate) stream: String,
    /// Copies, if the stream is made. Default: 1.
    #[serde(default = "one")]
    pub(crate) replicas: usize,
}

/// Requests on PREFIX.cmd.runbook.run start runs, for callers with a token of the API.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Commands {
    /// The subject begins with this. Default: watchkeeper.
    #[serde(default = "prefix")]
    pub(crate) prefix: String,
}

/// `ingest`: what an HTTP source's 2xx rests on.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ingest {
    /// `store`: our own commit, the default. `jetstream`: the acknowledgement of a stream that should have three copies and sync always.
    #[serde(default)]
    pub(crate) via: Via,
    /// The stream; made if it is not there. Default: WATCHKEEPER_INGEST.
    #[serde(default = "ingest_stream")]
    pub(crate) stream: String,
    /// Copies, if the stream is made. Default: 3.
    #[serde(default = "three")]
    pub(crate) replicas: usize,
}

/// What keeps a delivery before it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Via {
    /// Our own database.
    #[default]
    Store,
    /// A stream of NATS.
    Jetstream,
}

fn prefix() -> String {
    "watchkeeper".to_owned()
}

fn lifecycle_stream() -> String {
    "WATCHKEEPER".to_owned()
}

fn ingest_stream() -> String {
    "WATCHKEEPER_INGEST".to_owned()
}

fn one() -> usize {
    1
}

fn three() -> usize {
    3
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
    /// A file with the seed of an nkey.
    #[serde(default)]
    nkey_file: Option<PathBuf>,
    /// The user, with `password_file`.
    #[serde(default)]
    user: Option<String>,
    /// The user's password.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    password: Option<SecretString>,
    /// A token.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    token: Option<SecretString>,
    /// Which messages are events, by the name of the source (of kind `generic`) whose `map` reads them.
    #[serde(default)]
    subscriptions: BTreeMap<String, WrittenSubscription>,
    /// Certificates.
    #[serde(default)]
    tls: NatsTls,
    /// Lifecycle events out. Off unless it stands here.
    #[serde(default)]
    publish: Option<Publish>,
    /// Requests for runs in. Off unless it stands here.
    #[serde(default)]
    commands: Option<Commands>,
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
    proof: Proof,
    ingest: Option<Ingest>,
}

impl NatsConfig {
    pub(super) fn read(cx: &mut Sections<'_, '_, '_>) -> Option<NatsDraft> {
        let ingest = cx.value::<Ingest>("ingest");
        let Some((node, mut written)) = cx.value::<Written>("nats") else {
            if let Some((node, _)) = ingest.filter(|(_, ingest)| ingest.via == Via::Jetstream) {
                let help = "say where it is: `nats: { url: nats://HOST:4222 }`".to_owned();
                cx.report().add(node.find(&["via"]).at, "there is no NATS to keep deliveries", help);
            }
            return None;
        };
        if let Some((node, ingest)) = &ingest {
            token(cx, node.find(&["stream"]), &ingest.stream);
        }
        let missing = written.url.0.is_empty().then_some("").into_iter();
        for (problem, help) in missing.chain(written.url.0.iter().map(String::as_str)).filter_map(address_problem) {
            // A line with a secret in it is not shown.
            let at = node.find(&["url"]).at;
            let secret = written.url.0.iter().any(|url| url.contains('@'));
            if secret { cx.report().add_unseen(at, problem, help.to_owned()) } else { cx.report().add(at, problem, help.to_owned()) }
        }
        let told = Told {
            credentials: written.credentials_file.take().map(|path| cx.base.join(path)),
            nkey: written.nkey_file.take().map(|path| cx.base.join(path)),
            user: written.user.take(),
            password: written.password.take().map(|text| Kept { text, file: cx.secret_file("nats", "password_file") }),
            token: written.token.take().map(|text| Kept { text, file: cx.secret_file("nats", "token_file") }),
        };
        let proof = Proof::of(told).unwrap_or_else(|help| {
            cx.report().add(node.at, "this does not say who we are to NATS", help.to_owned());
            Proof::None
        });
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
            if let Some((one, other)) = overlap(&subscription.subjects.0) {
                let help = "NATS refuses a consumer whose subjects overlap: leave out the narrower one".to_owned();
                cx.report().add(node.find(&["subjects"]).at, format!("a message can be on both {one:?} and {other:?}"), help);
            }
        }
        if !written.tls.is_whole() {
            let help = "a certificate and its key belong together: give `cert_file` and `key_file`".to_owned();
            cx.report().add(node.find(&["tls"]).at, "half a certificate", help);
        }
        for (section, prefix) in [
            ("publish", written.publish.as_ref().map(|publish| &publish.prefix)),
            ("commands", written.commands.as_ref().map(|commands| &commands.prefix)),
        ] {
            if prefix.is_some_and(|prefix| !is_subject(prefix) || prefix.contains(['*', '>'])) {
                let help = "words with dots between them, without `*` and `>`".to_owned();
                cx.report().add(node.find(&[section, "prefix"]).at, "subjects cannot begin with this", help);
            }
        }
        if let Some(publish) = &written.publish {
            token(cx, node.find(&["publish", "stream"]), &publish.stream);
        }
        let ingest = ingest.map(|(_, ingest)| ingest).filter(|ingest| ingest.via == Via::Jetstream);
        Some(NatsDraft { node, written, proof, ingest })
    }
}

impl NatsDraft {
    pub(super) fn feeds(&self, source: &str) -> bool {
        self.written.subscriptions.contains_key(source)
    }

    /// Finds the mapping of every subscription.
    pub(super) fn joined(self, cx: &mut Sections<'_, '_, '_>, sources: &SourceTable) -> NatsConfig {
        let Self { node, written, proof, ingest } = self;
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
        let link = NatsLink { urls: written.url.0, proof, tls: written.tls.at(cx.base), inbox: None };
        NatsConfig { link, subscriptions, publish: written.publish, commands: written.commands, ingest }
    }
}

fn token(cx: &mut Sections<'_, '_, '_>, node: &Node, name: &str) {
    if !is_word(name) {
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

/// The first two of these that have a subject in common.
fn overlap(subjects: &[String]) -> Option<(&str, &str)> {
    let mut pairs = subjects.iter().enumerate().flat_map(|(at, one)| subjects.iter().skip(at + 1).map(move |other| (one, other)));
    pairs.find(|(one, other)| meet(one, other)).map(|(one, other)| (one.as_str(), other.as_str()))
}

/// Whether there is a subject that both stand for.
fn meet(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) | (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_that_overlap() {
        for (one, other) in [("a", "a"), ("a.b", "a.*"), ("a.*", "*.b"), ("a.>", "a.b.c"), ("*.b.c", "a.>"), (">", "a")] {
            assert!(meet(one, other) && meet(other, one), "{one} {other}");
        }
        for (one, other) in [("a", "b"), ("a", "a.b"), ("a.>", "a"), ("a.*", "a.b.c"), ("*.b", "a.c"), ("*", "a.>")] {
            assert!(!meet(one, other) && !meet(other, one), "{one} {other}");
        }
    }

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
