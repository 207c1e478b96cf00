//! What expressions see, refuse and cost.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const NAMES: [&str; 6] = ["alert", "labels", "alerts", "body", "n", "xs"];

fn vars() -> Value {
    json!({
        "alert": {"labels": {"severity": "critical", "my-label": "x", "n": "3"}, "annotations": {}, "status": "firing", "starts_at": "2026-11-22T10:00:00Z"},
        "labels": {"severity": "critical", "tags": ["a"]},
        "alerts": [{"labels": {"a": "1"}}, {"labels": {}}],
        "body": {"title": "disk full", "size": 12, "ratio": 0.5, "big": 18_446_744_073_709_551_615_u64, "items": [3, 1, 2], "none": null, "labels": [{"name": "bug"}]},
        "n": 4,
        "xs": (0..1000).collect::<Vec<_>>(),
    })
}

fn eval(text: &str) -> Result<Value, String> {
    Expr::compile(text, &NAMES).map_err(|e| e.to_string())?.eval(&vars()).map_err(|e| e.to_string())
}

#[test]
fn an_absent_label_is_the_empty_string() {
    for text in [
        r#"alert.labels.env == """#,
        r#"alert.labels.env != "dev""#,
        r#"alert.labels["env"] == """#,
        r#"alert["labels"].env == """#,
        r#"alert["labels"]["env"] == """#,
        r#"labels.env == "" && labels["env"] == """#,
        r#"alert.annotations.summary.startsWith("")"#,
        r#"labels.env in ["", "prod"]"#,
        r#"!labels.env.matches("prod|stage")"#,
        r#"alerts.all(a, a.labels.b == "")"#,
        r#"alerts.exists(a, a.labels.a == "") && alerts.exists(a, a.labels["a"] == "1")"#,
        r#"alert.labels.severity == "critical" && labels.severity == "critical""#,
        r#"alert.labels.`my-label` == "x" && alert.labels["my-label"] == "x""#,
        // Absence can still be told from emptiness.
        r#"!has(alert.labels.env) && has(alert.labels.severity)"#,
        r#"!("env" in labels) && "severity" in labels"#,
        r#"labels.?env.orValue("?") == "?""#,
        // Something else called labels keeps CEL's own rules.
        r#"body.labels[0].name == "bug" && body.labels.exists(l, l.name == "bug")"#,
        r#"size(labels.tags) == 1"#,
    ] {
        assert_eq!(eval(text), Ok(json!(true)), "{text}");
    }
    assert!(eval("body.titel == ''").unwrap_err().contains("no key `titel`"));
    assert!(eval("body.labels.name == ''").is_err());
    assert!(eval("alert.label.x == ''").unwrap_err().contains("no key `label`"));
}

#[test]
fn results_become_json() {
    for (text, result) in [
        ("n + 1", json!(5)),
        ("body.size * 2", json!(24)),
        ("body.ratio", json!(0.5)),
        ("body.big", json!(18_446_744_073_709_551_615_u64)),
        ("body.none", json!(null)),
        ("body.title + '!'", json!("disk full!")),
        ("body.items.map(i, i * 10)", json!([30, 10, 20])),
        ("body.items.filter(i, i > 1)", json!([3, 2])),
        ("{'a': [1, n], 'b': {'c': true}}", json!({"a": [1, 4], "b": {"c": true}})),
        ("timestamp(alert.starts_at) + duration('90s')", json!("2026-11-22T10:01:30+00:00")),
        ("duration('90s')", json!("90s")),
        ("timestamp(alert.starts_at).getHours()", json!(10)),
        ("int(alert.labels.n) + 1", json!(4)),
        ("type(n) == int", json!(true)),
        ("optional.of(n).orValue(0)", json!(4)),
        ("alert.status == 'firing' ? 'on' : 'off'", json!("on")),
        ("body.?nothing.orValue('none')", json!("none")),
    ] {
        assert_eq!(eval(text), Ok(result), "{text}");
    }
    for text in
        ["body.?title", "b'x'", "1.0 / 0.0", "1 / 0", "9223372036854775807 + 1", "int('x')", "timestamp('x')", "'a' + 1", "xs[5000]"]
    {
        assert!(eval(text).is_err(), "{text}");
    }
}

#[test]
fn conditions_are_boolean_and_texts_are_text() {
    let compiled = |text| Expr::compile(text, &NAMES).unwrap();
    assert_eq!(compiled("n == 4").eval_bool(&vars()), Ok(true));
    assert_eq!(compiled("body.title").eval_string(&vars()).unwrap(), "disk full");
    for text in ["n", "body.title", "'true'", "body.none", "body.items", "1"] {
        let error = compiled(text).eval_bool(&vars()).unwrap_err();
        assert!(error.to_string().contains("not a boolean"), "{error}");
    }
    assert_eq!(compiled("n").eval_string(&vars()).unwrap_err().to_string(), "the result is the number 4, not a string");
    assert_eq!(compiled("n == 4").eval_bool(&json!({})), Err(ExprError::NoValue("n".into())));
    // Only what is used has to be there.
    assert_eq!(compiled("n == 4").eval_bool(&json!({"n": 4})), Ok(true));
    assert_eq!(compiled("n == 4 && alerts.all(a, a.labels.x == '')").variables(), ["alerts", "n"]);
}

#[test]
fn mistakes_are_found_at_load_with_their_place() {
    for (text, line, column, says) in [
        ("alrt.labels.env == ''", 1, 1, "no variable `alrt`; did you mean `alert`?"),
        ("n == 1 &&\n  zzz > 2", 2, 3, "no variable `zzz`; known here: alert, labels"),
        ("alert.status.startWith('f')", 1, 23, "no function `startWith`; did you mean `startsWith`?"),
        ("alerts.all(a, b.labels.x == '')", 1, 15, "no variable `b`"),
        ("alerts.all(a, true) && a.labels.x == ''", 1, 24, "no variable `a`"),
        ("n == ", 1, 6, "mismatched input"),
        ("n = 1", 1, 3, "token recognition error"),
        ("(((", 1, 4, "mismatched input"),
        ("", 1, 1, "mismatched input"),
        ("body.title.matches(alert.labels.x)", 1, 19, "literal regular expression"),
        ("body.title.matches('(')", 1, 19, "does not compile"),
        ("xs.all(a, xs.all(b, xs.all(c, a + b + c > 0)))", 1, 27, "two deep"),
        ("Foo{a: 1}", 1, 4, "messages are not offered"),
        ("x.y.Foo{}", 1, 8, "messages are not offered"),
    ] {
        match Expr::compile(text, &NAMES) {
            Err(ExprError::Invalid { line: l, column: c, message, snippet }) => {
                assert!(message.contains(says), "{text}: {message}");
                assert_eq!((l, c), (line, column), "{text}: {message}\n{snippet}");
                assert!(snippet.ends_with('^'), "{snippet}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    let error = Expr::compile("n == 1 &&\n  zzz > 2", &NAMES).unwrap_err().to_string();
    assert!(error.ends_with("\n    zzz > 2\n    ^"), "{error}");
    assert_eq!(Expr::compile(&format!("n == {}", "1".repeat(MAX_TEXT)), &NAMES), Err(ExprError::TooLong));
    assert!(Expr::compile(&format!("{}1{}", "(".repeat(2000), ")".repeat(2000)), &NAMES).is_err());
}

/// Tests run with the small stacks that workers have.
#[test]
fn depth_is_bounded_before_the_stack_is() {
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("{1: ", "}"),
        ("size(", ")"),
        ("[1].map(x, ", ")"),
        ("1 + ", ""),
        ("n == n ? n : ", ""),
        ("alert.", ""),
        ("!", ""),
        ("-", ""),
        ("[[1]][0][", "]"),
        ("true || false && ", "true"),
    ] {
        let mut refused = false;
        for n in [1, 2, 5, 10, 15, 20, 23, 24, 25, 40, 60, 90, 100, 200, 500, 1000, 2000] {
            match Expr::compile(&format!("{}1{}", open.repeat(n), close.repeat(n)), &NAMES) {
                Ok(expr) => drop(expr.eval(&vars())),
                Err(error) => refused |= !error.to_string().is_empty(),
            }
        }
        assert!(refused || ["!", "-"].contains(&open), "{open}");
    }
    assert!(Expr::compile("1 + ".repeat(40).trim_end_matches(" + "), &NAMES).unwrap_err().to_string().contains("too deep"));
    assert!(Expr::compile(&format!("{}1{}", "(".repeat(99), ")".repeat(99)), &NAMES).unwrap_err().to_string().contains("too deep"));
    // What people write in earnest fits.
    let many = vec!["labels.service == 'x'"; 100].join(" || ");
    assert_eq!(eval(&many), Ok(json!(false)));
}

#[test]
fn every_offered_function_exists() {
    for name in check::FUNCTIONS {
        let calls = [
            format!("{name}()"),
            format!("{name}(n)"),
            format!("n.{name}()"),
            format!("n.{name}(n)"),
            format!("n.{name}('x')"),
            format!("[n].{name}(x, true)"),
            format!("{name}(alert.status)"),
            format!("optional.{name}(n)"),
            format!("optional.{name}()"),
            format!("optional.of(n).{name}(x, x)"),
        ];
        // A function that exists refuses the wrong arguments by its own name.
        let known = |call: &String| match eval(call) {
            Ok(_) => true,
            Err(error) => {
                let own = [format!("for '{name}'"), format!("for 'optional.{name}'")];
                own.iter().any(|own| error.contains(own)) || error.contains("holds an optional")
            }
        };
        assert!(calls.iter().any(known), "{name}: {:?}", calls.map(|c| eval(&c)));
    }
}

#[test]
fn loops_and_data_have_a_price() {
    assert_eq!(eval("xs.all(a, a >= 0)"), Ok(json!(true)));
    assert_eq!(
        eval("xs.map(a, xs.map(b, a * b)).size() == 1000").unwrap_err(),
        "the data is too large for this expression (it loops over more than 100000 elements): select less"
    );
    assert!(eval("xs.all(a, xs.exists(b, b < 0) == false)").unwrap_err().contains("100000 elements"));
    // The budget is of one evaluation, not of the process.
    for _ in 0..200 {
        assert_eq!(eval("xs.exists(a, a == 999)"), Ok(json!(true)));
    }
    let many = json!({"xs": vec![0; 300_000]});
    assert!(matches!(Expr::compile("size(xs)", &NAMES).unwrap().eval(&many), Err(ExprError::TooMuch(_))));
    // What is not used costs nothing.
    assert_eq!(Expr::compile("1 + 1", &NAMES).unwrap().eval(&many), Ok(json!(2)));
}

#[test]
fn hostile_labels_are_data() {
    for text in crate::text::hostile() {
        let vars = json!({"labels": {"x": text}, "alert": {"labels": {"x": text}}});
        let same = Expr::compile("labels.x == alert.labels.x && labels.x + 'z' != labels.x", &["labels", "alert"]).unwrap();
        assert_eq!(same.eval_bool(&vars), Ok(true), "{text:?}");
        assert_eq!(Expr::compile("labels.x", &["labels"]).unwrap().eval_string(&vars).unwrap(), text);
        for convert in
            ["int(labels.x)", "timestamp(labels.x)", "duration(labels.x)", "double(labels.x)", "labels[labels.x]", "bytes(labels.x).size()"]
        {
            let _ = Expr::compile(convert, &["labels"]).unwrap().eval(&vars);
        }
        // As an expression it is refused or harmless.
        if let Ok(expr) = Expr::compile(&text, &NAMES) {
            let _ = expr.eval(&vars);
        }
    }
}

#[test]
fn threads_can_share_one() {
    let expr = Expr::compile("xs.exists(a, a == 999)", &NAMES).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..20).for_each(|_| assert_eq!(expr.eval_bool(&vars()), Ok(true))));
        }
    });
    assert_eq!(expr, expr.clone());
    assert_eq!(format!("{expr:?} {expr}"), "Expr(\"xs.exists(a, a == 999)\") xs.exists(a, a == 999)");
}

/// Texts that are often valid, made of what expressions are made of.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "n",
        "xs",
        "alert",
        "labels",
        "body.title",
        "labels.a",
        "alert.labels",
        "1",
        "-1",
        "2.5",
        "'a'",
        "true",
        "null",
        "[1, 'b']",
        "{'k': n}",
        "body.items",
        "9223372036854775807",
        "1u",
        "b'x'",
        "''",
        "alert.starts_at",
        "int",
        "optional.none()",
        "[]",
        "{}",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 3, |inner| {
        let pair = (inner.clone(), inner.clone());
        let op = prop::sample::select(vec!["+", "-", "*", "/", "%", "==", "!=", "<", ">=", "in", "&&", "||"]);
        let call = prop::sample::select(vec![
            "size",
            "int",
            "string",
            "double",
            "timestamp",
            "duration",
            "type",
            "bytes",
            "uint",
            "bool",
            "dyn",
            "optional.of",
        ]);
        let method = prop::sample::select(vec!["contains", "startsWith", "endsWith", "getHours", "orValue", "getDate", "value", "matches"]);
        let range = prop::sample::select(vec!["all", "exists", "exists_one", "map", "filter"]);
        prop_oneof![
            (pair.clone(), op).prop_map(|((a, b), op)| format!("({a} {op} {b})")),
            (inner.clone(), call).prop_map(|(a, f)| format!("{f}({a})")),
            (pair.clone(), method).prop_map(|((a, b), m)| format!("{a}.{m}({b})")),
            (pair.clone(), range).prop_map(|((a, b), r)| format!("{a}.{r}(v, {b} == v)")),
            pair.clone().prop_map(|(a, b)| format!("{a}[{b}]")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            inner.clone().prop_map(|a| format!("{a}.?x")),
            inner.clone().prop_map(|a| format!("[?{a}, {{{a}: {a}}}]")),
            inner.prop_map(|a| format!("-{a} || !{a}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_panics(text in expression()) {
        if let Ok(expr) = Expr::compile(&text, &NAMES) {
            let _ = expr.eval(&vars());
        }
    }

    #[test]
    fn no_text_panics(text in "[a-nx'\"().,\\[\\]{}?:&|!=<>0-9 \n`@-]{0,32}") {
        if let Ok(expr) = Expr::compile(&text, &NAMES) {
            let _ = expr.eval(&vars());
        }
    }

    #[test]
    fn json_comes_back_as_it_went_in(numbers in prop::collection::vec(any::<i64>(), 0..8), texts in prop::collection::btree_map(".{0,8}", "(?s).{0,8}", 0..8), f in -1e9f64..1e9) {
        let value = json!({"numbers": numbers, "texts": texts, "nested": [{"f": f, "none": null, "yes": true}]});
        prop_assert_eq!(Expr::compile("body", &NAMES).unwrap().eval(&json!({"body": value})).unwrap(), value);
    }
}
