//! The findings of one check, gathered.

use super::problem::Problem;
use super::tree::{Pos, Tree};

/// Gathers findings.
pub struct Report<'t> {
    /// What they are about.
    pub tree: &'t Tree,
    found: Vec<Problem>,
    /// File and line of what nobody should see.
    unseen: Vec<(String, usize)>,
}

impl<'t> Report<'t> {
    /// Begins with what reading the files found.
    pub fn new(tree: &'t Tree, found: Vec<Problem>) -> Self {
        Self { tree, found, unseen: Vec::new() }
    }

    /// Adds a finding.
    pub fn add(&mut self, at: Pos, message: impl Into<String>, help: impl Into<Option<String>>) {
        let problem = self.tree.problem(at, message, help.into());
        if !self.found.contains(&problem) {
            self.found.push(problem);
        }
    }

    /// Adds a finding about a line that nobody should see. No finding shows that line.
    pub fn add_unseen(&mut self, at: Pos, message: impl Into<String>, help: impl Into<Option<String>>) {
        let problem = self.tree.problem(at, message, help.into());
        self.unseen.push((problem.file.clone(), problem.line));
        self.found.push(problem);
    }

    /// How many there are by now: to see whether a check added one.
    pub fn count(&self) -> usize {
        self.found.len()
    }

    /// All findings, in the order of the files and lines.
    pub fn finish(mut self) -> Vec<Problem> {
        for problem in &mut self.found {
            if self.unseen.iter().any(|(file, line)| *file == problem.file && *line == problem.line) {
                problem.snippet.clear();
                problem.source = None;
            }
        }
        let rank = |name: &str| self.tree.files.iter().position(|(file, _)| file == name);
        self.found.sort_by_key(|problem| (rank(&problem.file), problem.line, problem.column));
        self.found
    }
}
