//! Files that somebody's editor has ruined: whatever happens to a good file, the answer is a rule set or a list of findings, never a panic.

use proptest::prelude::*;

use super::*;

const EXAMPLE: &str = include_str!("../../../../deploy/watchkeeper.example.yaml");

fn compiled(text: &str) -> Result<RuleSet, Vec<Problem>> {
    compile(&[("example.yaml".to_owned(), text.to_owned())], &actions::Catalogue)
}

#[test]
fn the_example_compiles() {
    let rules = compiled(EXAMPLE).map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    let rules = rules.unwrap_or_else(|problems| panic!("{problems}"));
    let names: Vec<_> = rules.severities.iter().map(|severity| severity.name.as_str()).collect();
    assert_eq!(names, ["P1", "P2", "P3", "P4"]);
    assert!(rules.runbooks.contains_key("restart-service"));
    assert_eq!(rules.routes.last().map(|route| route.name.as_str()), Some(CATCH_ALL));
}

/// What may happen to a line.
#[derive(Clone, Debug)]
enum Damage {
    Delete,
    Duplicate,
    Indent,
    Cut(usize),
    Insert(&'static str),
}

fn damage() -> impl Strategy<Value = Damage> {
    let rubbish = prop::sample::select(vec![
        "routes:",
        "  - ",
        "{",
        "]",
        "&a *a",
        "x: y",
        "\t",
        "? ",
        "<<: *a",
        "'",
        "\"",
        "{{ labels.x }}",
        "null",
        "~: ~",
        "- - -",
        ": :",
        "|",
        "\u{0}",
        "runbooks: 1",
        "%TAG",
        "---",
        "...",
        "!!binary x",
        "steps: []",
        "with: { target: [] }",
        "quorum: 99999999999999999999",
        "timeout: -1s",
    ]);
    prop_oneof![
        3 => Just(Damage::Delete),
        2 => Just(Damage::Duplicate),
        1 => Just(Damage::Indent),
        2 => (0usize..80).prop_map(Damage::Cut),
        3 => rubbish.prop_map(Damage::Insert),
    ]
}

fn ruin(text: &str, damages: &[(prop::sample::Index, Damage)]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (place, damage) in damages {
        if lines.is_empty() {
            break;
        }
        let at = place.index(lines.len());
        match damage {
            Damage::Delete => drop(lines.remove(at)),
            Damage::Duplicate => lines.insert(at, lines[at].clone()),
            Damage::Indent => lines[at].insert_str(0, "  "),
            Damage::Cut(to) => {
                let kept = lines[at].chars().take(*to).collect();
                lines[at] = kept;
            }
            Damage::Insert(rubbish) => lines.insert(at, (*rubbish).to_owned()),
        }
    }
    lines.join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_ruined_file_gives_findings_and_no_panic(damages in prop::collection::vec((any::<prop::sample::Index>(), damage()), 1..6)) {
        let text = ruin(EXAMPLE, &damages);
        if let Err(problems) = compiled(&text) {
            prop_assert!(!problems.is_empty());
            let lines = text.lines().count();
            for problem in problems {
                prop_assert!(!problem.message.is_empty());
                // The parser may point just behind the end.
                prop_assert!(problem.line <= lines + 1, "{problem}");
                prop_assert!(problem.to_string().chars().all(|c| c == '\n' || !c.is_control()), "{problem}");
            }
        }
    }

    #[test]
    fn any_text_gives_findings_and_no_panic(text in "(?s).{0,200}") {
        if let Err(problems) = compiled(&text) {
            prop_assert!(!problems.is_empty());
        }
    }
}
