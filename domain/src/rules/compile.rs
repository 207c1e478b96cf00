//! From files to the rule set: everything that can be known to be wrong is told now, not at three in the morning.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;

use super::decode::decode;
use super::model::RuleSet;
use super::problem::{Problem, suggest};
use super::report::Report;
use super::schema::{Rules, SERVER_KEYS};
use super::tree::{Data, Node, Pos, Tree};
use crate::action::ActionCatalogue;
use crate::canonical::digest;

mod basics;
mod effects;
mod literal;
mod people;
mod places;
mod routes;
mod runbooks;
mod templates;
mod uses;

pub use people::BUILT_IN_ROLES;
pub use routes::CATCH_ALL;

/// Compiles configuration files, name and text each, in this order. Top-level keys of the server are left alone.
///
/// # Errors
/// All findings, in the order of files and lines.
pub fn compile(files: &[(String, String)], actions: &dyn ActionCatalogue) -> Result<RuleSet, Vec<Problem>> {
    let (tree, found) = Tree::parse(files);
    let mut report = Report::new(&tree, found);
    // What stands in a file that cannot be read would be reported as missing everywhere else.
    let rules = if tree.complete { compile_tree(files, actions, &mut report) } else { None };
    match rules {
        Some(rules) if report.count() == 0 => Ok(rules),
        _ => Err(report.finish()),
    }
}

/// The same for files that are read already: `report.tree` is made of `files`. `None` only if there were findings.
pub fn compile_tree(files: &[(String, String)], actions: &dyn ActionCatalogue, report: &mut Report<'_>) -> Option<RuleSet> {
    let before = report.count();
    let root = &report.tree.root;
    let known = Rules::KEYS.into_iter().chain(SERVER_KEYS);
    for (key, node) in root.entries() {
        if !known.clone().any(|name| name == key) {
            report.add(node.name_at(), format!("unknown key `{key}`"), suggest(key, known.clone(), ""));
        }
    }
    let mut build = Build { root, actions, report };
    let (severities, default_severity) = build.severities();
    let channels = build.channels();
    let default_channels = build.default_channels(&channels);
    let mut rules = RuleSet {
        digest: digest(&files).to_string(),
        texts: files.to_vec(),
        severities,
        default_severity,
        channels,
        default_channels,
        targets: build.targets(),
        routes: Vec::new(),
        runbooks: BTreeMap::new(),
        people: build.people(),
        sources: build.sources(),
        waits: build.waits(),
    };
    rules.runbooks = build.runbooks(&rules);
    rules.routes = build.routes(&rules);
    (build.report.count() == before).then_some(rules)
}

/// What every part of the compilation needs.
struct Build<'a, 't> {
    root: &'t Node,
    actions: &'a dyn ActionCatalogue,
    report: &'a mut Report<'t>,
}

impl<'t> Build<'_, 't> {
    fn add(&mut self, at: Pos, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.report.add(at, message, help);
    }

    /// The entries of a top-level map, decoded. Those with mistakes are told and left out.
    fn map<T: DeserializeOwned>(&mut self, section: &str) -> Vec<(&'t str, &'t Node, T)> {
        let Some(node) = self.root.get(section) else { return Vec::new() };
        let Data::Map(entries) = &node.data else {
            let message = format!("`{section}` is a map of names, found {}", node.kind());
            self.add(node.at, message, format!("write `{section}:` and below it, indented, one name per line"));
            return Vec::new();
        };
        let mut all = Vec::new();
        for (name, node) in entries {
            self.name(name, node.name_at());
            if let Some(value) = decode(node, self.report) {
                all.push((name.as_str(), node, value));
            }
        }
        all
    }

    /// The items of a top-level list, decoded, with their place in it.
    fn list<T: DeserializeOwned>(&mut self, section: &str) -> Vec<(usize, &'t Node, T)> {
        let Some(node) = self.root.get(section) else { return Vec::new() };
        let Data::List(items) = &node.data else {
            let message = format!("`{section}` is a list, found {}", node.kind());
            self.add(node.at, message, "begin each item with `- `".to_owned());
            return Vec::new();
        };
        let decoded = |(index, node)| Some((index, node, decode(node, self.report)?));
        items.iter().enumerate().filter_map(decoded).collect()
    }

    /// Names end in addresses, metrics and chat messages.
    fn name(&mut self, name: &str, at: Pos) {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
        if name.is_empty() || name.len() > 64 || !name.chars().all(good) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            let help = "use letters, digits, `-`, `_`, `.` and `@`, beginning with a letter or digit, at most 64 of them";
            self.add(at, format!("{name:?} cannot be a name"), help.to_owned());
        }
    }

    /// Whether a section has an entry of this name, also one with mistakes of its own; tells it if not.
    fn known(&mut self, what: &str, name: &str, section: &str, at: Pos) -> bool {
        let names: Vec<&str> = self.names(section);
        if names.contains(&name) {
            return true;
        }
        let none = format!("there are none yet: add it under `{section}:`");
        self.add(at, format!("there is no {what} `{name}`"), suggest(name, names, &none));
        false
    }

    /// The names in a top-level map, with mistakes or without.
    fn names(&self, section: &str) -> Vec<&'t str> {
        self.root.get(section).map(|node| node.entries().iter().map(|(name, _)| name.as_str()).collect()).unwrap_or_default()
    }

    /// The target kinds that some action works on.
    fn kinds(&self) -> BTreeSet<&'static str> {
        self.actions.all().into_iter().flat_map(|action| action.target_kinds().iter().copied()).collect()
    }

    fn known_kind(&mut self, kind: &str, at: Pos) {
        let kinds = self.kinds();
        if !kinds.contains(kind) {
            self.add(at, format!("no action works on targets of kind `{kind}`"), suggest(kind, kinds, "there is no such action"));
        }
    }
}
