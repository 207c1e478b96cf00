//! Configuration files as one tree in which every value knows its place, so that whatever is found wrong later can be shown there.

use std::sync::Arc;

use serde_json::Number;

use super::problem::Problem;
use super::yaml;

/// Larger files are refused, in bytes.
pub const MAX_FILE: usize = 4 << 20;

/// A place in the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pos {
    /// Which file: an index into [`Tree::files`].
    pub file: usize,
    /// From 1.
    pub line: usize,
    /// In characters from 1.
    pub column: usize,
    /// In characters.
    pub length: usize,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where the value stands.
    pub at: Pos,
    /// Where its key stands, if it is an entry of a map.
    pub key: Option<Pos>,
    /// Set for what came from the environment or a secret file: no message may repeat it.
    pub masked: bool,
    /// The value.
    pub data: Data,
}

/// A YAML value.
#[derive(Clone, Debug)]
pub enum Data {
    /// Nothing after the colon, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, and as written: an id of 19 digits is text to whoever wants text.
    Number(Number, String),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order written; keys are unique.
    Map(Vec<(String, Node)>),
}

/// All files, united: lists appended, maps joined.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Name and text of each file, in the order given.
    pub files: Vec<(String, Arc<str>)>,
    /// The united top level: always a map.
    pub root: Node,
    /// Whether every file could be read. If not, what is missing says nothing.
    pub complete: bool,
}

impl Tree {
    /// Reads the files and unites their top levels in the order given. What cannot be read is left out of the tree and told.
    pub fn parse(files: &[(String, String)]) -> (Self, Vec<Problem>) {
        let named = files.iter().map(|(name, text)| (name.clone(), Arc::from(text.as_str()))).collect();
        let mut tree =
            Self { files: named, root: Node::new(Pos { file: 0, line: 0, column: 0, length: 0 }, Data::Map(Vec::new())), complete: true };
        let mut found = Vec::new();
        for file in 0..tree.files.len() {
            match tree.read(file, &mut found) {
                Some(top) => tree.unite(top, &mut found),
                None => tree.complete = false,
            }
        }
        (tree, found)
    }

    /// A finding at a place.
    pub fn problem(&self, at: Pos, message: impl Into<String>, help: Option<String>) -> Problem {
        match self.files.get(at.file) {
            Some((name, _)) if at.line == 0 => Problem::of_file(name, message, help),
            Some((name, text)) => Problem::at(name, Arc::clone(text), (at.line, at.column, at.length), message, help),
            None => Problem::of_file("configuration", message, help),
        }
    }

    /// `file:line` of a place, for messages that point to a second one.
    pub fn place(&self, at: Pos) -> String {
        let name = self.files.get(at.file).map_or("configuration", |(name, _)| name);
        format!("{name}:{}", at.line)
    }

    /// The top level of a file; `None`, and told, if it cannot be read.
    fn read(&self, file: usize, found: &mut Vec<Problem>) -> Option<Vec<(String, Node)>> {
        let (name, text) = &self.files[file];
        if text.len() > MAX_FILE {
            let help = "split it into several files of one directory".to_owned();
            found.push(Problem::of_file(name, format!("the file has {} bytes; at most {MAX_FILE} are read", text.len()), Some(help)));
            return None;
        }
        let problem = |fault: yaml::Fault| self.problem(fault.at, fault.message, fault.help);
        let (node, faults) = yaml::read(file, text).map_err(|fault| found.push(problem(fault))).ok()?;
        found.extend(faults.into_iter().map(problem));
        match node {
            Node { data: Data::Map(entries), .. } => Some(entries),
            Node { data: Data::Null, .. } => Some(Vec::new()),
            other => {
                let help = "begin with one of its keys, such as `routes:`".to_owned();
                found.push(self.problem(other.at, "a configuration file is a map", Some(help)));
                None
            }
        }
    }

    fn unite(&mut self, top: Vec<(String, Node)>, found: &mut Vec<Problem>) {
        for (key, mut node) in top {
            // `routes:` with everything below it commented out.
            if matches!(node.data, Data::Null) {
                continue;
            }
            let Some(mine) = self.root.entry_mut(&key) else {
                if let Data::Map(entries) = &mut self.root.data {
                    entries.push((key, node));
                }
                continue;
            };
            match (&mut mine.data, &mut node.data) {
                (Data::List(mine), Data::List(more)) => mine.append(more),
                (Data::Map(_), Data::Map(more)) => {
                    let more = std::mem::take(more);
                    for (name, node) in more {
                        let twice = self.root.get(&key).and_then(|mine| mine.get(&name)).map(Node::name_at);
                        match (twice, self.root.entry_mut(&key).map(|mine| &mut mine.data)) {
                            (Some(first), _) => found.push(self.twice(&name, node.name_at(), first)),
                            (None, Some(Data::Map(mine))) => mine.push((name, node)),
                            (None, _) => {}
                        }
                    }
                }
                (Data::List(_) | Data::Map(_), _) | (_, Data::List(_) | Data::Map(_)) => {
                    let message = format!("`{key}` is {} here and {} elsewhere", node.kind(), mine.kind());
                    let help = format!("see {}", self.place(self.root.find(&[&key]).name_at()));
                    found.push(self.problem(node.name_at(), message, Some(help)));
                }
                _ => {
                    let first = mine.name_at();
                    found.push(self.twice(&key, node.name_at(), first));
                }
            }
        }
    }

    fn twice(&self, name: &str, at: Pos, first: Pos) -> Problem {
        let help = format!("it is at {} already: keep one of them", self.place(first));
        self.problem(at, format!("`{name}` is given twice"), Some(help))
    }
}

impl Node {
    /// A value at a place.
    pub fn new(at: Pos, data: Data) -> Self {
        Self { at, key: None, masked: false, data }
    }

    /// The entry of this name, if this is a map that has it.
    pub fn get(&self, name: &str) -> Option<&Node> {
        match &self.data {
            Data::Map(entries) => entries.iter().find(|(key, _)| key == name).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The entries of a map; none for anything else.
    pub fn entries(&self) -> &[(String, Node)] {
        match &self.data {
            Data::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; none for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.data {
            Data::List(items) => items,
            _ => &[],
        }
    }

    /// The text, if this is text.
    pub fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Follows names (of maps) and numbers (of lists) as far as they lead: where to show what is wrong with the thing at the end.
    pub fn find(&self, path: &[&str]) -> &Node {
        let Some((first, rest)) = path.split_first() else { return self };
        let next = match &self.data {
            Data::List(items) => first.parse().ok().and_then(|index: usize| items.get(index)),
            _ => self.get(first),
        };
        next.map_or(self, |node| node.find(rest))
    }

    /// Where its key stands, or else the value itself.
    pub fn name_at(&self) -> Pos {
        self.key.unwrap_or(self.at)
    }

    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.data {
            Data::Null => "nothing",
            Data::Bool(_) => "true or false",
            Data::Number(..) => "a number",
            Data::Text(_) => "text",
            Data::List(_) => "a list",
            Data::Map(_) => "a map",
        }
    }

    fn entry_mut(&mut self, name: &str) -> Option<&mut Node> {
        match &mut self.data {
            Data::Map(entries) => entries.iter_mut().find(|(key, _)| key == name).map(|(_, node)| node),
            _ => None,
        }
    }
}
