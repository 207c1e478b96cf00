//! Where text from outside may not go: what runs, where it runs, and whom a request reaches. Labels, annotations and free texts are data; literals,
//! targets and choices are the author's own.

use super::Build;
use super::templates::Scope;
use crate::rules::model::ParamType;
use crate::rules::tree::Node;
use crate::template::{Part, Template, is_urlencoded, parts};

/// The parameters of actions that are paths.
const PATHS: [&str; 2] = ["program", "cwd"];
/// The parameter of actions that is a URL.
const URL: &str = "url";
/// Stands for what will be filled in.
const FILLED: char = '\u{fffc}';

impl Build<'_, '_> {
    /// Checks the parameters of an action, whose templates compile.
    pub(super) fn places(&mut self, with: &Node, scope: &Scope<'_>) {
        for (key, node) in with.entries() {
            let Some(text) = node.text() else { continue };
            if PATHS.contains(&key.as_str()) {
                if let Some(name) = from_outside(text, scope) {
                    let help = format!("write it out, or let a parameter of type `choice` say which `{key}`; arguments may hold `{name}`");
                    self.add(node.at, format!("`{name}` is text from outside, which is never a path: `{key}` is"), help);
                }
            } else if key == URL {
                self.url(node, text, scope);
            }
        }
    }

    fn url(&mut self, node: &Node, text: &str, scope: &Scope<'_>) {
        let Some(any) = from_outside(text, scope) else { return };
        let (mut shape, mut filled) = (String::new(), Vec::new());
        for part in parts(text) {
            match part {
                Part::Text(text) => shape.push_str(text),
                Part::Value(body) => {
                    filled.push((shape.len(), Some(body)));
                    shape.push(FILLED);
                }
                Part::Statement => {
                    filled.push((shape.len(), None));
                    shape.push(FILLED);
                }
            }
        }
        let path = path_of(&shape);
        let mut host = None;
        for (at, body) in filled {
            // A statement before the path may make any text of it, also of what comes behind.
            let Some(body) = body else {
                if at < path {
                    host = Some(any);
                    break;
                }
                continue;
            };
            let Some(name) = from_outside(&format!("{{{{ {body} }}}}"), scope) else { continue };
            if at < path {
                host = Some(name);
                break;
            }
            if !is_urlencoded(body) {
                let help = "end it with the filter `urlencode`: `{{ .. | urlencode }}`".to_owned();
                self.add(node.at, format!("`{name}` is text from outside, and stands in a URL as it is"), help);
                return;
            }
        }
        if let Some(name) = host {
            let help = "write them out, or use a parameter of type `target` or `choice`; path and query may hold it, `| urlencode`d";
            let message = format!("`{name}` is text from outside, which is never the scheme, host or port of a URL");
            self.add(node.at, message, help.to_owned());
        }
    }
}

/// The first name in a template that stands for text from outside.
fn from_outside(text: &str, scope: &Scope<'_>) -> Option<String> {
    let outside = |name: &String| {
        let mut parts = name.split('.');
        match (parts.next(), parts.next()) {
            (Some("params"), Some(param)) => {
                let spec = scope.params().and_then(|params| params.get(param));
                spec.is_some_and(|spec| matches!(spec.kind, ParamType::Text { .. }))
            }
            // Everything else: the alert, all parameters at once, or what a loop over one of them goes through.
            _ => true,
        }
    };
    Template::compile(text).ok()?.variables().into_iter().find(outside)
}

/// Where the path, query or fragment of a URL begins: before it stand scheme, host and port. The end, where that cannot be told.
fn path_of(shape: &str) -> usize {
    let Some(scheme) = shape.find("://") else { return shape.len() };
    let host = scheme + "://".len();
    // Further slashes there are skipped by whoever reads it.
    let host = host + shape[host..].find(|c| !matches!(c, '/' | '\\')).unwrap_or(shape.len() - host);
    shape[host..].find(['/', '?', '#']).map_or(shape.len(), |at| host + at)
}
