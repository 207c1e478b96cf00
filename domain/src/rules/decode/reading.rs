//! Serde's view of a node.

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::{Fault, State, address, plain};
use crate::rules::tree::{Data, Node};

/// A node being read.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) node: &'a Node,
    pub(super) state: &'a State,
}

impl<'a> Reading<'a> {
    fn wrong<T>(self, visitor: &dyn de::Expected) -> Result<T, Fault> {
        let found = match &self.node.data {
            Data::Text(text) if !self.node.masked => format!("text {:?}", text.chars().take(40).collect::<String>()),
            Data::Number(_, written) => format!("the number {written}"),
            Data::Bool(value) => format!("`{value}`"),
            _ => self.node.kind().to_owned(),
        };
        Err(Fault::new(format!("expected {}, found {found}", plain(&visitor.to_string()))).within(self.node))
    }

    fn list<'de, V: Visitor<'de>>(self, items: &'a [Node], visitor: V) -> Result<V::Value, Fault> {
        let items = Items { rest: items.iter(), state: self.state };
        visitor.visit_seq(items).map_err(|fault| fault.within(self.node))
    }

    fn map<'de, V: Visitor<'de>>(self, known: Option<&'static [&'static str]>, visitor: V) -> Result<V::Value, Fault> {
        let mut kept = Vec::new();
        for (name, node) in self.node.entries() {
            match known {
                Some(known) if !known.contains(&name.as_str()) => self.state.unknown_key(name, node, known),
                _ if self.state.is_left_out(node) => {}
                _ => kept.push((name.as_str(), node)),
            }
        }
        let entries = Entries { rest: kept.into_iter(), value: None, state: self.state };
        visitor.visit_map(entries).map_err(|fault| fault.within(self.node))
    }

    /// A number where one is wanted: also from text that the environment filled in, which is always text.
    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let filled = match &self.node.data {
            Data::Number(number, _) => Some(number.clone()),
            Data::Text(text) if self.node.masked => text.trim().parse().ok(),
            _ => None,
        };
        let Some(number) = filled else { return self.wrong(&visitor) };
        let read = match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(n), ..) => visitor.visit_u64(n),
            (_, Some(n), _) => visitor.visit_i64(n),
            (.., n) => visitor.visit_f64(n.unwrap_or(f64::NAN)),
        };
        read.map_err(|fault: Fault| fault.within(self.node))
    }
}

impl<'de> Deserializer<'de> for Reading<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let read = match &self.node.data {
            Data::Null => visitor.visit_unit(),
            Data::Bool(value) => visitor.visit_bool(*value),
            Data::Number(..) => return self.number(visitor),
            Data::Text(text) => visitor.visit_str(text),
            Data::List(items) => return self.list(items, visitor),
            Data::Map(_) => return self.map(None, visitor),
        };
        read.map_err(|fault: Fault| fault.within(self.node))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let read = match &self.node.data {
            Data::Text(text) => visitor.visit_str(text),
            Data::Number(_, written) => visitor.visit_str(written),
            Data::Bool(value) => visitor.visit_str(if *value { "true" } else { "false" }),
            _ => return self.wrong(&"text"),
        };
        read.map_err(|fault: Fault| fault.within(self.node))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.data {
            Data::Bool(value) => visitor.visit_bool(*value),
            Data::Text(text) if self.node.masked && text == "true" => visitor.visit_bool(true),
            Data::Text(text) if self.node.masked && text == "false" => visitor.visit_bool(false),
            _ => self.wrong(&visitor),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.number(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.number(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.number(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.number(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.data {
            Data::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.data {
            Data::List(items) => self.list(items, visitor),
            _ => self.wrong(&visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.data {
            Data::Map(_) => self.map(None, visitor),
            _ => self.wrong(&visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.node.data {
            Data::Map(_) => self.map(Some(fields), visitor),
            _ => self.wrong(&visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.node.data {
            Data::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()).map_err(|fault: Fault| fault.within(self.node)),
            _ => self.wrong(&"one of the known words"),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

struct Items<'a> {
    rest: std::slice::Iter<'a, Node>,
    state: &'a State,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(node) = self.rest.find(|item| !self.state.is_left_out(item)) else { return Ok(None) };
        let read = seed.deserialize(Reading { node, state: self.state });
        read.map(Some).map_err(|fault| fault.within(node))
    }
}

struct Entries<'a> {
    rest: std::vec::IntoIter<(&'a str, &'a Node)>,
    value: Option<&'a Node>,
    state: &'a State,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((name, node)) = self.rest.next() else { return Ok(None) };
        self.value = Some(node);
        let key: StrDeserializer<'_, Fault> = name.into_deserializer();
        // A key that will not do leaves its whole entry out.
        let wrong = |fault: Fault| Fault { place: Some((address(node), node.name_at())), ..fault };
        seed.deserialize(key).map(Some).map_err(wrong)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        match self.value.take() {
            Some(node) => seed.deserialize(Reading { node, state: self.state }).map_err(|fault| fault.within(node)),
            None => Err(Fault::new("a value was asked for before its key")),
        }
    }
}
