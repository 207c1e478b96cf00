//! `agents`: the key that signs orders for other hosts, and the keys of those who carry them out.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::link::is_word;
use super::part::Sections;

/// Agents and keys.
#[derive(Clone, Debug)]
pub(crate) struct AgentsConfig {
    /// Signs orders.
    pub(crate) key: PathBuf,
    /// Subjects begin with this.
    pub(crate) prefix: String,
    /// Public keys of the agents, by name.
    pub(crate) known: BTreeMap<String, PathBuf>,
}

/// Agents on other hosts: docs/agents.md. A target that says `agent: NAME` is acted on by that agent alone.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    /// The private key that signs orders: `watchkeeper agent keygen orders` makes it.
    key_file: PathBuf,
    /// Subjects begin with this. Default: watchkeeper.
    #[serde(default)]
    prefix: Option<String>,
    /// The agents, by name.
    known: BTreeMap<String, WrittenAgent>,
}

/// One agent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenAgent {
    /// Checks its reports.
    public_key_file: PathBuf,
}

impl AgentsConfig {
    pub(super) fn read(cx: &mut Sections<'_, '_, '_>) -> Option<Self> {
        let (node, written) = cx.value::<Written>("agents")?;
        if cx.written("nats").is_none() {
            let help = "orders travel over NATS: `nats: { url: nats://HOST:4222 }`".to_owned();
            cx.report().add(node.at, "there is no NATS to reach agents by", help);
        }
        for name in written.known.keys().filter(|name| !is_word(name)) {
            let help = "use letters, digits, `-` and `_`".to_owned();
            cx.report().add(node.find(&["known", name]).name_at(), format!("{name:?} cannot be the name of an agent"), help);
        }
        Some(Self {
            key: cx.base.join(written.key_file),
            prefix: written.prefix.unwrap_or_else(|| "watchkeeper".to_owned()),
            known: written.known.into_iter().map(|(name, agent)| (name, cx.base.join(agent.public_key_file))).collect(),
        })
    }
}
