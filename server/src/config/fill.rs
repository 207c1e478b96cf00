//! Puts environment variables and secret files into the server's part of the tree. Secrets never stand in the files themselves: the files are
//! kept in the database, so that a run can finish under the rules that it began with.

use std::io;
use std::path::{Path, PathBuf};

use domain::redact::{MAX_SECRET, MIN_SECRET};
use domain::rules::Report;
use domain::rules::tree::{Data, Node, Pos};
use secrecy::SecretString;

/// The keys whose values are secrets. Each may be written as `NAME_file` instead, with the path of a file that holds it.
pub(super) const SECRET_KEYS: [&str; 7] = ["bearer", "bot_token", "metrics_token", "password", "secret", "signing_secret", "token"];
/// Sections whose values from the environment are secrets in parts: an address with a password or a token in it.
const SECRET_SECTIONS: [&str; 2] = ["heartbeat", "store"];

/// Stands where a secret is missing, in a form that every kind of secret may have: what is told once is not told again by later checks.
const PLACEHOLDER: &str = "whsec_cHJldGVuZGVkLXByZXRlbmRlZC1wcmV0ZW5kZWQtMDA=";

/// Where values outside the files come from.
pub(crate) struct Lookup<'a> {
    /// An environment variable.
    pub(crate) env: &'a dyn Fn(&str) -> Option<String>,
    /// The text of a secret's file.
    pub(crate) file: &'a dyn Fn(&Path) -> io::Result<String>,
}

impl Lookup<'static> {
    /// The process's environment and the real files.
    pub(crate) fn real() -> Self {
        Self { env: &environment, file: &|path| std::fs::read_to_string(path) }
    }

    /// Pretends that every secret is there: for checking a configuration where its secrets are not.
    pub(crate) fn pretended() -> Self {
        Self { env: &|_| Some(PLACEHOLDER.to_owned()), file: &|_| Ok(PLACEHOLDER.to_owned()) }
    }
}

/// An environment variable, if it is set and UTF-8.
pub(crate) fn environment(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "the one home of the environment")]
    std::env::var(name).ok()
}

/// Fills sections in and gathers the secrets.
pub(super) struct Filler<'f, 'r, 't> {
    pub(super) lookup: &'f Lookup<'f>,
    /// Where relative paths begin.
    pub(super) base: &'f Path,
    pub(super) report: &'r mut Report<'t>,
    pub(super) secrets: Vec<SecretString>,
    /// Files of secrets, by where they are named.
    pub(super) files: Vec<(Pos, PathBuf)>,
}

impl Filler<'_, '_, '_> {
    /// A top-level section with everything filled in. What is missing is told.
    pub(super) fn section(&mut self, name: &str, node: &Node) -> Node {
        self.node(node, SECRET_SECTIONS.contains(&name))
    }

    fn node(&mut self, node: &Node, secret: bool) -> Node {
        match &node.data {
            Data::Text(text) => self.text(node, text, secret),
            Data::List(items) => {
                let items = items.iter().map(|item| self.node(item, secret)).collect();
                Node { data: Data::List(items), ..bare(node) }
            }
            Data::Map(entries) => {
                let entries = entries.iter().filter_map(|entry| self.entry(node, entry, secret)).collect();
                Node { data: Data::Map(entries), ..bare(node) }
            }
            _ => node.clone(),
        }
    }

    fn entry(&mut self, map: &Node, (name, node): &(String, Node), secret: bool) -> Option<(String, Node)> {
        if SECRET_KEYS.contains(&name.as_str()) {
            return Some((name.clone(), self.secret(name, node)));
        }
        let Some(stem) = name.strip_suffix("_file").filter(|stem| SECRET_KEYS.contains(stem)) else {
            return Some((name.clone(), self.node(node, secret)));
        };
        if map.get(stem).is_some() {
            let help = format!("keep either `{stem}` or `{name}`");
            self.report.add(node.name_at(), format!("`{stem}` is given twice: here as a file"), help);
            return None;
        }
        let filled = match &node.data {
            Data::List(paths) => Node { data: Data::List(paths.iter().map(|path| self.read_file(path)).collect()), ..bare(node) },
            _ => self.read_file(node),
        };
        Some((stem.to_owned(), filled))
    }

    /// A value that must come from outside.
    fn secret(&mut self, name: &str, node: &Node) -> Node {
        match &node.data {
            Data::List(items) => Node { data: Data::List(items.iter().map(|item| self.secret(name, item)).collect()), ..bare(node) },
            Data::Text(text) if text.contains("${") => {
                let filled = self.filled(text, node.at, false);
                self.kept(node, filled)
            }
            Data::Text(_) | Data::Number(..) | Data::Bool(_) => {
                let help = format!("write `{name}: '${{NAME}}'` and set that environment variable, or `{name}_file: PATH`");
                self.report.add_unseen(node.name_at(), format!("`{name}` is a secret and may not stand in this file"), help);
                Node { masked: true, ..node.clone() }
            }
            _ => node.clone(),
        }
    }

    fn read_file(&mut self, node: &Node) -> Node {
        let Data::Text(path) = &node.data else { return node.clone() };
        let path = self.base.join(self.filled(path, node.at, false));
        self.files.push((node.at, path.clone()));
        let text = match (self.lookup.file)(&path) {
            Ok(text) => text.trim().to_owned(),
            Err(error) => {
                let help = "put the secret there, readable by this user only, or correct the path".to_owned();
                self.report.add(node.at, format!("the secret's file {} cannot be read: {error}", path.display()), help);
                return masked(node, PLACEHOLDER.to_owned());
            }
        };
        self.kept(node, text)
    }

    /// Remembers a secret for the redactor, if it can be one.
    fn kept(&mut self, node: &Node, secret: String) -> Node {
        let make = "make one with `openssl rand -base64 32`".to_owned();
        match secret.len() {
            0 => self.report.add(node.at, "this secret is empty", make),
            n if n < MIN_SECRET => self.report.add(node.at, format!("this secret is shorter than {MIN_SECRET} bytes"), make),
            n if n <= MAX_SECRET => {
                if secret != PLACEHOLDER {
                    self.secrets.push(secret.clone().into());
                }
                return masked(node, secret);
            }
            _ => self.report.add(node.at, format!("this secret is longer than {MAX_SECRET} bytes"), "is it the right file?".to_owned()),
        }
        masked(node, PLACEHOLDER.to_owned())
    }

    fn text(&mut self, node: &Node, text: &str, secret: bool) -> Node {
        if !text.contains("${") {
            return node.clone();
        }
        let text = self.filled(text, node.at, secret);
        masked(node, text)
    }

    /// The text with each `${NAME}` replaced; `$${` stands for `${` itself.
    fn filled(&mut self, text: &str, at: Pos, secret: bool) -> String {
        let (mut out, mut rest) = (String::new(), text);
        while let Some(start) = rest.find("${") {
            if rest[..start].ends_with('$') {
                out.push_str(&rest[..start - 1]);
                out.push_str("${");
                rest = &rest[start + 2..];
                continue;
            }
            out.push_str(&rest[..start]);
            rest = &rest[start + 2..];
            let Some(end) = rest.find('}') else {
                self.report.add(at, "a `${` is not closed", "write `${NAME}`, or `$${` for the two characters themselves".to_owned());
                return out + PLACEHOLDER;
            };
            let name = &rest[..end];
            rest = &rest[end + 1..];
            match (self.lookup.env)(name).filter(|value| !value.trim().is_empty()) {
                Some(value) => {
                    if secret && (MIN_SECRET..=MAX_SECRET).contains(&value.len()) {
                        self.secrets.push(value.clone().into());
                    }
                    out.push_str(value.trim());
                }
                None => {
                    let help =
                        "set it where the server is started (systemd `EnvironmentFile=`, compose `environment:`), or use a file".to_owned();
                    self.report.add(at, format!("the environment variable `{name}` is not set, or empty"), help);
                    out.push_str(PLACEHOLDER);
                }
            }
        }
        out + rest
    }
}

fn bare(node: &Node) -> Node {
    Node { at: node.at, key: node.key, masked: node.masked, data: Data::Null }
}

fn masked(node: &Node, text: String) -> Node {
    Node { masked: true, data: Data::Text(text), ..bare(node) }
}
