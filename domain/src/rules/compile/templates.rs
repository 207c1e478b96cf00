//! Templates and expressions: whether they compile, and whether what they name exists.

use std::collections::BTreeMap;

use super::Build;
use crate::expr::Expr;
use crate::rules::model::ParamSpec;
use crate::rules::problem::suggest;
use crate::rules::tree::{Data, Node};
use crate::template::Template;

/// What `alert` has, in templates and expressions: see `route::context`.
const ALERT: [&str; 6] = ["annotations", "fingerprint", "labels", "source", "starts_at", "status"];

/// What a template may name.
pub(super) enum Scope<'a> {
    /// The alert: in titles and in what a remedy gives to its runbook.
    Alert,
    /// The alert and the runbook's parameters: in steps.
    Steps(&'a BTreeMap<String, ParamSpec>),
}

impl<'a> Scope<'a> {
    pub(super) fn params(&self) -> Option<&'a BTreeMap<String, ParamSpec>> {
        match self {
            Self::Alert => None,
            Self::Steps(params) => Some(params),
        }
    }

    fn names(&self) -> Vec<&'static str> {
        let mut names = vec!["alert", "annotations", "labels"];
        names.extend(self.params().map(|_| "params"));
        names
    }
}

/// Whether a text has anything to fill in.
pub(super) fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|open| text.contains(open))
}

impl Build<'_, '_> {
    /// Checks every text below a node.
    pub(super) fn templates(&mut self, node: &Node, scope: &Scope<'_>) {
        match &node.data {
            Data::Text(_) => {
                self.template(node, scope);
            }
            Data::List(items) => items.iter().for_each(|item| self.templates(item, scope)),
            Data::Map(entries) => entries.iter().for_each(|(_, node)| self.templates(node, scope)),
            Data::Null | Data::Bool(_) | Data::Number(..) => {}
        }
    }

    /// Compiles a text and checks the names in it.
    pub(super) fn template(&mut self, node: &Node, scope: &Scope<'_>) -> Option<Template> {
        let template = match Template::compile(node.text()?) {
            Ok(template) => template,
            Err(error) => {
                self.add(node.at, format!("this template does not compile: {error}"), None);
                return None;
            }
        };
        for name in template.variables() {
            let mut parts = name.split('.');
            let (first, second) = (parts.next().unwrap_or_default(), parts.next());
            match (first, second, scope.params()) {
                ("labels" | "annotations", ..) | ("alert", None, _) | ("params", None, Some(_)) => {}
                ("alert", Some(field), _) if ALERT.contains(&field) => {}
                ("alert", Some(field), _) => {
                    let help = suggest(field, ALERT, "");
                    self.add(node.at, format!("`alert` has no `{field}`"), help);
                }
                ("params", Some(param), Some(params)) if params.contains_key(param) => {}
                ("params", Some(param), Some(params)) => {
                    let none = "it has none: add it under `params:`";
                    let help = suggest(param, params.keys().map(String::as_str), none);
                    self.add(node.at, format!("this runbook has no parameter `{param}`"), help);
                }
                _ => {
                    let help = suggest(first, scope.names(), "");
                    self.add(node.at, format!("there is no `{first}` here"), help);
                }
            }
        }
        Some(template)
    }

    /// Compiles a condition.
    pub(super) fn condition(&mut self, node: &Node, text: &str) -> Option<Expr> {
        match Expr::compile(text, &["alert", "annotations", "labels"]) {
            Ok(expr) => Some(expr),
            Err(error) => {
                let text = error.to_string();
                self.add(node.at, format!("this condition does not compile: {}", text.lines().next().unwrap_or_default()), None);
                None
            }
        }
    }
}
