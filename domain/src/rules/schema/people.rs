//! People as written.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

/// A person or a program.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    /// What they may do: names of roles.
    pub roles: Vec<String>,
    /// Who they are on Slack: `TEAM/USER`, both ids and not names, such as `T0123ABCD/U0456EFGH`.
    #[serde(default)]
    pub slack: Identities,
    /// Who they are on Discord: `GUILD/USER`, two long numbers.
    #[serde(default)]
    pub discord: Identities,
    /// False for programs: they never count towards a quorum. Default true.
    #[serde(default)]
    pub human: Option<bool>,
}

/// One identity, or a list of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identities(pub Vec<String>);

impl<'de> Deserialize<'de> for Identities {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Identities;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text such as WORKSPACE/USER, or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Identities, E> {
                Ok(Identities(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Identities, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = seq.next_element()? {
                    all.push(one);
                }
                Ok(Identities(all))
            }
        }

        d.deserialize_any(OneOrMany)
    }
}

impl JsonSchema for Identities {
    fn schema_name() -> Cow<'static, str> {
        "Identities".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = json_schema!({ "type": "string", "pattern": "^[^/ ]+/[^/ ]+$" });
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}
