//! `sources`: who may send, and how what they send becomes alerts. No secret, no entry.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::duration::Dur;
use domain::rules::problem::suggest;
use domain::rules::tree::Node;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;
use webhook_gateway::sources::generic::{GenericMap, MapSpec};
use webhook_gateway::sources::{KINDS, kind};
use webhook_gateway::{AuthError, Credential, SourceAuth, SourceSettings, SourceTable};

use super::bus::{NatsConfig, NatsDraft};
use super::one_or_many::OneOrMany;
use super::part::Sections;

/// Names that we use ourselves: a source of this name could speak in our place, or hide behind a count of ours.
const TAKEN: [(&str, &str); 3] = [
    ("watchkeeper", "the source of Watchkeeper's alerts about itself"),
    ("api", "how refused callers of the API are counted"),
    ("unknown", "how refused senders to sources that do not exist are counted"),
];

/// Where events come from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    /// What sends here: `alertmanager`, or `generic` for any JSON.
    kind: String,
    /// How senders prove themselves. Needed unless everything comes by NATS.
    #[serde(default)]
    auth: Option<Auth>,
    /// `generic`: CEL expressions over `body` and `headers` (and `item` where there is `each`) that make an alert: `each`, `fingerprint`,
    /// `status`, `labels`, `annotations`, `starts_at`, `ends_at`, `url`.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, serde_json::Value>>")]
    map: Option<MapSpec>,
    /// How often a firing alert is sent again: Alertmanager's `repeat_interval`, 4h unless said otherwise. An alert that is not sent again
    /// for twice this long becomes stale and its automation stops. Other kinds: off unless given.
    #[serde(default)]
    #[expect(dead_code, reason = "the rules read it")]
    repeat_interval: Option<Dur>,
    /// Alerts that must keep coming, by `alertname`, and how long they may be silent: `Watchdog: 15m`. Silence opens an incident.
    #[serde(default)]
    #[expect(dead_code, reason = "the rules read it")]
    heartbeats: BTreeMap<String, Dur>,
}

/// How senders prove themselves: any of these will do. Two secrets of a kind are active at once, so that they can be changed without a gap.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Auth {
    /// `Authorization: Bearer ..`
    #[serde(default)]
    bearer: OneOrMany<SecretString>,
    /// `Authorization: Basic ..`
    #[serde(default)]
    basic: Option<Basic>,
    /// A signature over the body, made with a shared secret.
    #[serde(default)]
    hmac: Option<Hmac>,
    /// A signature over the body, made with a key that only the sender has: `X-Signature-Timestamp` and `X-Signature-Ed25519`.
    #[serde(default)]
    ed25519: Option<Ed25519>,
}

/// A user name and its password.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Basic {
    /// No secret.
    user: String,
    /// The password.
    password: OneOrMany<SecretString>,
}

/// A signature over the body.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Hmac {
    /// How it is sent.
    form: Form,
    /// What it is made with.
    secret: OneOrMany<SecretString>,
}

/// How a signature is sent.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Form {
    /// `X-Hub-Signature-256`.
    Github,
    /// `webhook-id`, `webhook-timestamp` and `webhook-signature`; secrets begin with `whsec_`.
    StandardWebhooks,
    /// `X-Slack-Request-Timestamp` and `X-Slack-Signature`.
    Slack,
    /// `Stripe-Signature`.
    Stripe,
}

/// A signature that is checked with a public key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Ed25519 {
    /// 64 hexadecimal digits; no secret.
    public_key: OneOrMany<String>,
}

impl Auth {
    fn credentials(self) -> Vec<Credential> {
        let mut all: Vec<Credential> = self.bearer.0.into_iter().map(Credential::Bearer).collect();
        if let Some(Basic { user, password }) = self.basic {
            all.extend(password.0.into_iter().map(|password| Credential::Basic { user: user.clone(), password }));
        }
        if let Some(Hmac { form, secret }) = self.hmac {
            all.extend(secret.0.into_iter().map(|secret| match form {
                Form::Github => Credential::HubSignature(secret),
                Form::StandardWebhooks => Credential::StandardWebhooks(secret),
                Form::Slack => Credential::SlackSignature(secret),
                Form::Stripe => Credential::StripeSignature(secret),
            }));
        }
        all.extend(self.ed25519.into_iter().flat_map(|ed25519| ed25519.public_key.0).map(Credential::Ed25519));
        all
    }
}

/// Reads the sources, and joins the subscriptions of NATS to those that they feed.
pub(super) fn read(cx: &mut Sections<'_, '_, '_>, nats: Option<NatsDraft>) -> (SourceTable, Option<NatsConfig>) {
    let mut table = SourceTable::new();
    for (name, node, written) in cx.entries::<Written>("sources") {
        if let Some((_, whose)) = TAKEN.iter().find(|(taken, _)| *taken == name) {
            let help = "give the source another name, and change the address in its sender".to_owned();
            cx.report().add(node.name_at(), format!("a source may not be called `{name}`: that is {whose}"), help);
            continue;
        }
        let fed = nats.as_ref().is_some_and(|nats| nats.feeds(&name));
        let map = mapping(cx, &node, &written);
        let Some(kind) = kind(&written.kind) else {
            let help = suggest(&written.kind, KINDS.iter().map(|kind| kind.kind()), "");
            cx.report().add(node.find(&["kind"]).at, format!("there is no kind of source `{}`", written.kind), help);
            continue;
        };
        let auth = match written.auth {
            Some(auth) => SourceAuth::new(&auth.credentials()),
            // Nobody gets in by HTTP.
            None if fed => Ok(SourceAuth::default()),
            None => Err(AuthError::Missing),
        };
        match auth {
            Ok(auth) => drop(table.insert(name, SourceSettings { kind, auth, map })),
            Err(AuthError::Missing) => {
                let help = "write `auth: { bearer_file: FILE }`, or `bearer: '${NAME}'`; make a secret with `openssl rand -base64 32`";
                let message = format!("the source `{name}` has no secret: anybody could send alerts to it");
                cx.report().add(node.get("auth").unwrap_or(&node).name_at(), message, help.to_owned());
            }
            Err(error) => cx.report().add(node.find(&["auth"]).name_at(), error.to_string(), None),
        }
    }
    let nats = nats.map(|nats| nats.joined(cx, &table));
    (table, nats)
}

fn mapping(cx: &mut Sections<'_, '_, '_>, node: &Node, written: &Written) -> Option<Arc<GenericMap>> {
    let generic = written.kind == "generic";
    match &written.map {
        Some(spec) if generic => match GenericMap::compile(spec) {
            Ok(map) => return Some(Arc::new(map)),
            Err(error) => {
                let path: Vec<&str> = std::iter::once("map").chain(error.at.splitn(2, '.')).collect();
                let why = error.why.lines().next().unwrap_or_default();
                let whole = error.at == "labels";
                let message = if whole { why.to_owned() } else { format!("this expression does not compile: {why}") };
                cx.report().add(node.find(&path).at, message, None);
            }
        },
        Some(_) => {
            let help = "remove it, or change `kind` to generic".to_owned();
            cx.report().add(node.find(&["map"]).name_at(), format!("a source of kind `{}` has no `map`", written.kind), help);
        }
        None if generic => {
            let help = "write `map: { labels: { alertname: '\"Name\"', service: body.service } }`".to_owned();
            cx.report().add(node.name_at(), "a generic source needs a `map`: how its JSON becomes alerts", help);
        }
        None => {}
    }
    None
}
