//! The invariants of the tree that the compiler does not check: who may depend on whom, where names may appear, what must exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use harness::repo;

/// Which of our crates each may name. Arrows point down only; `harness` may name what it likes and is named by tests alone.
const ARROWS: [(&str, &[&str]); 7] = [
    ("domain", &[]),
    ("store", &["domain"]),
    ("actions", &["domain"]),
    ("bot", &["domain"]),
    ("handlers", &["domain", "store"]),
    ("webhook-gateway", &["domain", "store"]),
    ("server", &["domain", "store", "actions", "bot", "handlers", "webhook-gateway"]),
];

/// Dependencies with one home, so that what they stand for (SQL, a vendor's types, a bus) stays there.
const HOMES: [(&str, &[&str]); 5] = [
    ("sqlx", &["store"]),
    ("serenity", &["bot"]),
    ("slack-morphism", &["bot"]),
    ("async-nats", &["server", "actions"]),
    ("axum", &["webhook-gateway"]),
];

/// `domain` decides; it does no I/O.
const NOT_IN_DOMAIN: [&str; 7] = ["tokio", "reqwest", "hyper", "sqlx", "axum", "rustix", "libc"];

#[test]
fn crates_depend_downwards_only() {
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).chain(["harness"]).collect();
    let mut wrong = vec![];
    for (name, may) in ARROWS {
        for (section, dependency) in dependencies(name) {
            let dev = section == "dev-dependencies";
            let allowed = may.contains(&&*dependency) || (dev && dependency == "harness");
            if ours.contains(&*dependency) && !allowed {
                wrong.push(format!("{name}/Cargo.toml: [{section}] may not name {dependency}"));
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn dependencies_stay_in_their_homes() {
    let mut wrong = vec![];
    for (name, _) in ARROWS {
        for (section, dependency) in dependencies(name) {
            let strange = HOMES.iter().any(|(what, homes)| dependency == *what && !homes.contains(&name));
            let impure = name == "domain" && NOT_IN_DOMAIN.contains(&&*dependency);
            if strange || impure {
                wrong.push(format!("{name}/Cargo.toml: [{section}] may not name {dependency}"));
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn versions_are_fixed_in_one_place() {
    let mut wrong = vec![];
    for (name, _) in ARROWS.iter().chain(&[("tests", &[] as &[&str])]) {
        for (line, text) in lines(&repo().join(name).join("Cargo.toml")) {
            let own = text.contains("version = \"") || text.contains("features = [");
            if own || text.contains("path = \"../") && !text.contains("tests/it/main.rs") {
                wrong.push(format!("{name}/Cargo.toml:{line}: versions, features and paths live in the root Cargo.toml"));
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn every_file_says_what_it_is_for() {
    let sources = rust_files();
    assert!(sources.len() > 20, "found only {} sources", sources.len());
    let silent = sources
        .iter()
        .filter(|file| !read(file).starts_with("//! "))
        .map(|file| format!("{}: opens with a `//!` sentence saying what it is for", shown(file)));
    assert_none(silent.collect());
}

#[test]
fn nothing_is_left_for_later() {
    // Written in halves, so that this file does not find itself.
    let forbidden = [
        (["#[ign", "ore"], "a test that never runs proves nothing"),
        (["to", "do!("], "a placeholder"),
        (["unimpl", "emented!("], "a placeholder"),
        (["#[al", "low("], "#[expect(.., reason = \"..\")] says why and notices when it is not needed"),
        (["#![al", "low("], "#![expect(.., reason = \"..\")] says why and notices when it is not needed"),
    ];
    let mut wrong = vec![];
    for file in rust_files() {
        for (line, text) in lines(&file) {
            for (halves, why) in &forbidden {
                if text.contains(&halves.concat()) {
                    wrong.push(format!("{}:{line}: {}: {why}", shown(&file), halves.concat()));
                }
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn every_integration_test_is_declared() {
    let here = repo().join("tests/it");
    let main = read(&here.join("main.rs"));
    let declared = |name: &str| main.lines().any(|line| line == format!("mod {name};"));
    let entries = fs::read_dir(&here).unwrap().map(|entry| entry.unwrap());
    let modules = entries.filter_map(|entry| {
        let path = entry.path();
        let is_module = path.extension().is_some_and(|end| end == "rs") || path.join("mod.rs").exists();
        let name = path.file_stem()?.to_str()?.to_owned();
        (is_module && name != "main").then_some(name)
    });
    let missing = modules.filter(|name| !declared(name));
    assert_none(missing.map(|name| format!("tests/it/main.rs lacks `mod {name};`")).collect());
}

#[test]
fn both_databases_have_the_same_migrations() {
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(repo().join("migrations").join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let (sqlite, postgres) = (names("sqlite"), names("postgres"));
    assert!(!sqlite.is_empty(), "migrations/sqlite is empty");
    let odd = sqlite.symmetric_difference(&postgres);
    assert_none(odd.map(|name| format!("migrations/*/{name} stands in one folder only")).collect());
}

#[test]
fn architecture_names_only_what_exists() {
    let text = fs::read_to_string(repo().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is missing");
    let names = file_names();
    let mut seen = 0;
    let mut wrong = vec![];
    for (line, text) in (1..).zip(text.lines()) {
        for path in text.split('`').skip(1).step_by(2).filter(|span| is_path(span)) {
            seen += 1;
            if !exists(path, &names) {
                wrong.push(format!("ARCHITECTURE.md:{line}: `{path}` does not exist"));
            }
        }
    }
    assert_none(wrong);
    assert!(seen > 20, "found only {seen} paths: has the way they are written changed?");
}

/// A span of code is a path when it looks like one: `handlers/src/jobs/`, `deny.toml`. Routes begin with a slash; `<name>` is a placeholder.
fn is_path(span: &str) -> bool {
    let path_like = |c: char| c.is_ascii_alphanumeric() || "._-/*".contains(c);
    let ends = [".rs", ".md", ".toml", ".yaml", ".yml", ".sql", ".css", ".js", ".html", ".service"];
    let file_like = ends.iter().any(|end| span.len() > end.len() && span.ends_with(end));
    span.chars().all(path_like) && !span.starts_with('/') && (span.contains('/') || file_like)
}

/// A path must exist, `*` stands for any part of a name, and a bare file name may stand anywhere.
fn exists(path: &str, names: &BTreeMap<String, Vec<PathBuf>>) -> bool {
    let wanted: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    let matches = |file: &PathBuf| {
        let parts: Vec<String> = shown(file).split('/').map(str::to_owned).collect();
        parts.len() >= wanted.len() && wanted.iter().zip(&parts).all(|(pattern, part)| fits(pattern, part))
    };
    let bare = wanted.len() == 1 && names.keys().any(|name| fits(wanted[0], name));
    bare || repo().join(path).exists() || names.values().flatten().any(matches)
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        Some((start, end)) => name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end),
        None => name == pattern,
    }
}

/// The names in a manifest's dependency sections, each with its section.
fn dependencies(folder: &str) -> Vec<(String, String)> {
    let mut section = String::new();
    let mut found = vec![];
    for (_, text) in lines(&repo().join(folder).join("Cargo.toml")) {
        if let Some(header) = text.strip_prefix('[') {
            section = header.trim_end_matches(']').to_owned();
            // The long form, `[dependencies.name]`.
            if let Some((kind, name)) = section.split_once("dependencies.") {
                found.push((format!("{kind}dependencies"), name.to_owned()));
            }
        } else if section.ends_with("dependencies")
            && let Some((name, _)) = text.split_once(['.', ' ', '='])
            && !name.starts_with('#')
        {
            found.push((section.clone(), name.to_owned()));
        }
    }
    assert!(!found.is_empty(), "{folder}/Cargo.toml names no dependency: is it read rightly?");
    found
}

/// `./test --long` shares its time among so many.
#[test]
fn the_tests_of_faults_are_counted() {
    let begins = |line: &str| line.contains("harness::rounds(\"") || line.trim_start().starts_with("sweep(\"");
    let here = |file: &PathBuf| file.starts_with(repo().join("tests/it")) && !file.ends_with("tidy.rs");
    let count = rust_files().iter().filter(|file| here(file)).flat_map(|file| lines(file)).filter(|(_, line)| begins(line)).count();
    assert_eq!(count, harness::FAULTS as usize, "say so in tests/src/tally.rs");
}

fn rust_files() -> Vec<PathBuf> {
    let all = file_names().into_values().flatten();
    all.filter(|path| path.extension().is_some_and(|end| end == "rs")).collect()
}

/// Every file of the tree by its name, without build output and hidden folders.
fn file_names() -> BTreeMap<String, Vec<PathBuf>> {
    let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    let mut folders = vec![repo()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with('.') || name == "target" {
                continue;
            }
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => found.entry(name).or_default().push(entry.path()),
            }
        }
    }
    found
}

fn lines(file: &Path) -> Vec<(usize, String)> {
    (1..).zip(read(file).lines().map(str::to_owned)).collect()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", shown(file)))
}

fn shown(file: &Path) -> String {
    file.strip_prefix(repo()).unwrap_or(file).display().to_string()
}

#[track_caller]
fn assert_none(mut wrong: Vec<String>) {
    wrong.sort();
    assert!(wrong.is_empty(), "{} to mend:\n{}", wrong.len(), wrong.join("\n"));
}
