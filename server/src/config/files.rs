//! Finds and reads the files: one, or all `*.yaml` of a folder, and what `include` names.

use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use domain::rules::Problem;
use domain::rules::tree::{MAX_FILE, Tree};

/// A folder with more files than this is not the one that was meant.
const MOST_FILES: usize = 500;

/// What was read.
#[derive(Default)]
pub(super) struct Files {
    /// The folder at which relative paths begin.
    pub(super) base: PathBuf,
    /// Name, relative to `base` where it lies below, and text; in the order in which lists are appended.
    pub(super) texts: Vec<(String, String)>,
    /// What could not be read.
    pub(super) problems: Vec<Problem>,
}

/// Reads a file, or the `*.yaml` and `*.yml` of a folder in the order of their names; then what they include, in the order written.
pub(super) fn read(path: &Path) -> Files {
    let mut files = Files::default();
    let found = match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            files.base = path.to_owned();
            yaml_of(path)
        }
        Ok(_) => {
            files.base = path.parent().map(Path::to_owned).unwrap_or_default();
            Ok(vec![path.to_owned()])
        }
        Err(error) => Err(error.to_string()),
    };
    match found {
        Ok(found) if found.is_empty() => {
            let help = "put a watchkeeper.yaml there, or name the file".to_owned();
            files.problems.push(Problem::of_file(path.display().to_string(), "there is no *.yaml in this folder", Some(help)));
        }
        Ok(found) => found.iter().for_each(|file| files.take(file)),
        Err(error) => {
            let help = "name a configuration file or a folder with *.yaml files".to_owned();
            files.problems.push(Problem::of_file(path.display().to_string(), format!("cannot be read: {error}"), Some(help)));
        }
    }
    files.include();
    files
}

impl Files {
    fn take(&mut self, path: &Path) {
        let name = path.strip_prefix(&self.base).unwrap_or(path).display().to_string();
        if self.texts.iter().any(|(other, _)| *other == name) {
            return;
        }
        if self.texts.len() == MOST_FILES {
            self.problems.push(Problem::of_file(name, format!("there are more than {MOST_FILES} files"), None));
            return;
        }
        // One byte more than allowed is enough to be refused later.
        let limit = MAX_FILE as u64 + 1;
        let mut bytes = Vec::new();
        let text = fs::File::open(path)
            .and_then(|file| file.take(limit).read_to_end(&mut bytes))
            .map_err(|error| error.to_string())
            .and_then(|_| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()));
        match text {
            Ok(text) => self.texts.push((name, text)),
            Err(error) => self.problems.push(Problem::of_file(path.display().to_string(), format!("cannot be read: {error}"), None)),
        }
    }

    fn include(&mut self) {
        let (tree, _) = Tree::parse(&self.texts);
        let Some(list) = tree.root.get("include") else { return };
        if list.text().is_some() || list.items().iter().any(|item| item.text().is_none()) {
            let help = "write `include: [packs/*.yaml]`".to_owned();
            self.problems.push(tree.problem(list.at, "`include` is a list of paths", Some(help)));
            return;
        }
        for item in list.items() {
            let pattern = item.text().unwrap_or_default();
            match glob(&self.base, pattern) {
                Ok(found) if found.is_empty() => {
                    let help = "`*` and `?` stand for parts of one name; relative paths begin at this folder".to_owned();
                    self.problems.push(tree.problem(item.at, format!("no file is called {pattern:?}"), Some(help)));
                }
                Ok(found) => found.iter().for_each(|file| self.take(file)),
                Err(error) => self.problems.push(tree.problem(item.at, format!("cannot look for {pattern:?}: {error}"), None)),
            }
        }
    }
}

fn yaml_of(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = names(folder)?;
    found.retain(|name| !name.starts_with('.') && (name.ends_with(".yaml") || name.ends_with(".yml")));
    Ok(found.into_iter().map(|name| folder.join(name)).filter(|path| path.is_file()).collect())
}

/// The files that a path with `*` and `?` in its names means, sorted.
fn glob(base: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = vec![base.to_owned()];
    for part in Path::new(pattern).components() {
        let name = part.as_os_str().to_string_lossy();
        let mut next = Vec::new();
        for folder in found {
            match part {
                Component::Normal(_) if name.contains(['*', '?']) => {
                    let fits = |other: &String| matches(&name, other) && (name.starts_with('.') || !other.starts_with('.'));
                    next.extend(names(&folder).unwrap_or_default().into_iter().filter(fits).map(|name| folder.join(name)));
                }
                _ => next.push(folder.join(part)),
            }
        }
        if next.len() > MOST_FILES {
            return Err(format!("it means more than {MOST_FILES} files"));
        }
        found = next;
    }
    found.retain(|path| path.is_file());
    Ok(found)
}

fn names(folder: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(folder).map_err(|error| error.to_string())?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(|error| error.to_string())?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether a name is of the form of a pattern with `*` and `?`.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // Greedy, with one way back: to the last star, taking one character more.
    let (mut p, mut n, mut back) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                back = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match back {
                Some((star, taken)) => {
                    back = Some((star, taken + 1));
                    p = star + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, name, fits) in [
            ("*.yaml", "a.yaml", true),
            ("*.yaml", ".yaml", true),
            ("*.yaml", "a.yml", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("?.yaml", "é.yaml", true),
            ("?.yaml", "ab.yaml", false),
            ("**", "", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn a_folder_is_read_in_order_and_then_what_it_includes() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("packs")).unwrap();
        for (name, text) in [
            ("20.yml", "b: 1"),
            ("10.yaml", "include: ['packs/*.yaml', packs/a.yaml, missing/*.yaml]"),
            (".hidden.yaml", "c: 1"),
            ("notes.txt", "d"),
            ("packs/b.yaml", "e: 1"),
            ("packs/a.yaml", "f: 1"),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let files = read(dir.path());
        let names: Vec<_> = files.texts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["10.yaml", "20.yml", "packs/a.yaml", "packs/b.yaml"]);
        assert_eq!(files.problems.len(), 1);
        assert!(files.problems[0].to_string().starts_with("10.yaml:1:41: no file is called \"missing/*.yaml\""), "{}", files.problems[0]);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).problems[0].message.contains("no *.yaml"));
        assert!(read(&dir.path().join("nothing")).problems[0].message.contains("cannot be read"));
        fs::write(dir.path().join("a.yaml"), [0xff, 0xfe]).unwrap();
        assert!(read(dir.path()).problems[0].message.contains("UTF-8"));
    }
}
