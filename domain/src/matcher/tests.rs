//! What matchers accept, refuse and print.

use proptest::prelude::*;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn matcher(text: &str) -> Matcher {
    Matcher::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn the_four_operators_compare_whole_values() {
    let seen = labels(&[("severity", "critical"), ("service", "api-2")]);
    for (text, holds) in [
        (r#"severity="critical""#, true),
        ("severity=critical", true),
        (r#" severity = "critical" "#, true),
        (r#"severity!="critical""#, false),
        (r#"severity=~"crit""#, false),
        (r#"severity=~"crit.*|page""#, true),
        (r#"service=~"api-\d""#, true),
        (r#"service=~"api-\\d""#, true),
        (r#"service!~"api|web""#, true),
        ("service=~api-[0-9]+", true),
        // Alertmanager: an absent label is the empty string.
        (r#"env="""#, true),
        ("env=", true),
        (r#"env!="""#, false),
        (r#"env!="prod""#, true),
        (r#"env=~".+""#, false),
        (r#"env=~".*""#, true),
        (r#"env!~".+""#, true),
    ] {
        assert_eq!(matcher(text).matches(&seen), holds, "{text}");
    }
}

#[test]
fn an_expression_cannot_leave_its_anchors() {
    assert!(Matcher::parse(r#"a=~"x)|(y""#).is_err());
    assert!(Matcher::parse(r#"a=~"(?x) x #""#).is_err());
    for (expression, value) in [("x|y", "xz"), ("(?m)x$", "x\ny"), ("x$\n?", "x\nx"), ("(?i)x|", "yx")] {
        assert!(!Matcher::new("a", Op::Match, expression).unwrap().matches_value(value), "{expression}");
    }
}

#[test]
fn errors_have_a_column_and_say_what_to_write() {
    for (text, column, says) in [
        ("", 1, "label name"),
        ("=x", 1, "label name"),
        ("severity", 9, "expected =, !=, =~ or !~"),
        ("severity == x", 11, "after the operator"),
        ("severity!x", 10, "expected =, !="),
        (r#"severity="critical"#, 10, "never closed"),
        (r#"sévérité ="x" y"#, 15, "unexpected 'y'"),
        ("a=b c", 5, "quote a value"),
        ("a=b,c=d", 4, "own list item"),
        ("a='b'", 3, "not with '"),
        (r#"a=~"(""#, 4, "does not compile"),
        (r#"a=~"x{1000}{1000}{1000}""#, 4, "too large"),
        (r#"""="x""#, 3, "label name"),
    ] {
        let error = Matcher::parse(text).unwrap_err();
        assert_eq!(error.column, column, "{text}: {error}");
        assert!(error.to_string().contains(says), "{text}: {error}");
    }
    assert!(Matcher::parse(&format!("a={}", "x".repeat(9000))).is_err());
}

#[test]
fn lists_come_with_and_without_braces() {
    let expected = vec![matcher("a=b"), matcher(r#"c!="d, e""#)];
    for text in [r#"{a="b", c!="d, e"}"#, r#"a=b,c!="d, e""#, r#" { a = b , c != "d, e" , } "#] {
        assert_eq!(Matchers::parse(text).unwrap().0, expected, "{text}");
    }
    assert_eq!(Matchers::parse("{}").unwrap(), Matchers::default());
    assert_eq!(Matchers::parse("").unwrap(), Matchers::default());
    for (text, column) in [("{a=b", 5), ("a=b}", 4), ("{a=b} c", 7), ("a=b c=d", 5), ("{,}", 2), (r#"{a=~"["}"#, 5)] {
        assert_eq!(Matchers::parse(text).unwrap_err().column, column, "{text}");
    }
}

#[test]
fn explains_the_first_condition_that_fails() {
    let rules = Matchers::parse(r#"alertname="Down", severity=~"critical|page", env="prod""#).unwrap();
    let seen = labels(&[("alertname", "Down"), ("severity", "warning")]);
    assert!(!rules.matches(&seen));
    assert_eq!(rules.explain(&seen).unwrap().to_string(), r#"severity=~"critical|page" does not hold: severity is "warning""#);
    let seen = labels(&[("alertname", "Down"), ("severity", "page")]);
    assert_eq!(rules.explain(&seen).unwrap().to_string(), r#"env="prod" does not hold: there is no label env"#);
    let seen = labels(&[("alertname", "Down"), ("severity", "page"), ("env", "prod")]);
    assert_eq!(rules.explain(&seen), None);
    assert!(Matchers::default().matches(&seen));
}

#[test]
fn configuration_reads_texts_and_lists() {
    let list: Matchers = serde_json::from_str(r#"["a=b", "\"my label\"!~\"x|y\""]"#).unwrap();
    assert_eq!(list.to_string(), r#"{a="b", "my label"!~"x|y"}"#);
    assert_eq!(serde_json::from_str::<Matchers>(r#""{a=b}""#).unwrap().to_string(), r#"{a="b"}"#);
    assert_eq!(serde_json::to_string(&list).unwrap(), r#"["a=\"b\"","\"my label\"!~\"x|y\""]"#);
    assert!(serde_json::from_str::<Matchers>(r#"["a b"]"#).unwrap_err().to_string().contains("column 3"));
    assert!(serde_json::from_str::<Matchers>("7").is_err());
}

proptest! {
    #[test]
    fn the_canonical_form_round_trips(name in "\\PC{1,12}", value in "(?s).{0,24}", negative: bool) {
        let op = if negative { Op::NotEqual } else { Op::Equal };
        let made = Matcher::new(name, op, value).unwrap();
        let again = Matcher::parse(&made.to_string()).unwrap();
        prop_assert_eq!(&again, &made);
        prop_assert_eq!(again.to_string(), made.to_string());
        let both = Matchers(vec![made.clone(), made]);
        prop_assert_eq!(Matchers::parse(&both.to_string()).unwrap(), both);
    }

    #[test]
    fn a_matcher_and_its_negation_never_agree(expression in "[a-c|.*+()]{0,8}", value in "[a-d]{0,6}") {
        if let (Ok(yes), Ok(no)) = (Matcher::new("l", Op::Match, expression.clone()), Matcher::new("l", Op::NotMatch, expression)) {
            prop_assert_ne!(yes.matches_value(&value), no.matches_value(&value));
        }
    }

    #[test]
    fn no_text_panics(text in "[ab\"'=!~,{}\\\\(\u{e9}\n ]{0,24}") {
        let _ = Matcher::parse(&text);
        if let Ok(list) = Matchers::parse(&text) {
            prop_assert_eq!(Matchers::parse(&list.to_string()).unwrap(), list);
        }
    }
}
