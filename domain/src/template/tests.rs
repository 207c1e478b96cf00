//! What templates fill in, refuse, and never do twice.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn render(text: &str, context: &Value) -> Result<String, String> {
    Template::compile(text).map_err(|e| e.to_string())?.render(context).map_err(|e| e.to_string())
}

fn context() -> Value {
    json!({
        "labels": {"service": "api", "n": "3", "evil": "{{ 7*7 }}", "long": "x".repeat(4000)},
        "alert": {"value": 7, "ratio": 0.5, "firing": true, "note": null, "tags": ["a", "b"]},
        "incident": {"number": 142},
    })
}

#[test]
fn values_are_filled_in() {
    for (text, shown) in [
        ("plain", "plain"),
        ("restart {{ labels.service }} for #{{ incident.number }}", "restart api for #142"),
        ("{{ labels['service'] | upper }}", "API"),
        ("{{ labels.missing | default('none') }}", "none"),
        ("{{ alert.note | default('-', true) }}", "-"),
        ("{% if alert.firing %}up{% else %}down{% endif %}", "up"),
        ("{% for t in alert.tags %}{{ t }};{% endfor %}", "a;b;"),
        ("{{ alert.tags }} {{ alert.ratio }} {{ alert.firing }}", r#"["a","b"] 0.5 true"#),
        ("{{ labels | items | map('first') | join(',') | length }}", "19"),
        ("{# a remark #}{{ '}}' }}{{ \"|nofilter is nothing\" }}", "}}|nofilter is nothing"),
        ("{{ labels.evil | replace('7', '8') }}", "{{ 8*8 }}"),
        ("{{ alert | tojson }}", r#"{"firing":true,"note":null,"ratio":0.5,"tags":["a","b"],"value":7}"#),
        ("a\n{{- labels.service -}}\nb\n", "aapib\n"),
        ("<b>{{ '<&' }}", "<b><&"),
        ("{{ 'a-b_c~d.e' | urlencode }}{{ 7 | urlencode }}", "a-b_c~d.e7"),
        ("{{ ' /..?&#%é+@:' | urlencode }}", "%20%2F..%3F%26%23%25%C3%A9%2B%40%3A"),
    ] {
        assert_eq!(render(text, &context()).as_deref(), Ok(shown), "{text}");
    }
}

#[test]
fn what_leads_up_in_a_path_or_is_no_text_is_no_part_of_a_url() {
    for text in ["{{ '.' | urlencode }}", "{{ '..' | urlencode }}", "{{ alert.tags | urlencode }}", "{{ alert.note | urlencode }}"] {
        assert!(render(text, &context()).unwrap_err().contains("of a URL"), "{text}");
    }
    assert!(render("{{ labels.zzz | urlencode }}", &context()).is_err());
}

#[test]
fn what_is_filled_in_is_never_a_template() {
    assert_eq!(render("{{ labels.evil }}", &context()).unwrap(), "{{ 7*7 }}");
    assert_eq!(render_json(&json!(["{{ labels.evil }}", "a {{ labels.evil }}"]), &context()).unwrap(), json!(["{{ 7*7 }}", "a {{ 7*7 }}"]));
    for text in crate::text::hostile() {
        let context = json!({"labels": {"x": text}});
        assert_eq!(render("a {{ labels.x }} b", &context).unwrap_or_default().len() == text.len() + 4, text.len() + 4 <= MAX_OUTPUT);
        if text.len() + 4 <= MAX_OUTPUT {
            assert_eq!(render("a {{ labels.x }} b", &context).unwrap(), format!("a {text} b"));
            assert_eq!(render_json(&json!({"k": "{{ labels.x }}"}), &context).unwrap(), json!({"k": text}));
        }
    }
}

#[test]
fn hostile_templates_end_in_an_error_or_in_text() {
    for text in crate::text::hostile() {
        if let Ok(template) = Template::compile(&text) {
            let _ = template.render(&context());
            let _ = template.variables();
        }
    }
}

#[test]
fn undefined_names_are_errors_that_name_them() {
    for (text, says) in [
        ("{{ labels.servce }}", "`labels.servce` is not defined (did you mean `labels.service`?)"),
        ("a {{ label.service }}", "`label.service` is not defined (did you mean `labels`?)"),
        ("a {{ nothing }}", "`nothing` is not defined"),
        ("{{ labels.zzz.deeper }}", "`labels.zzz.deeper` is not defined"),
        ("{% if labels.zzz %}x{% endif %}", "`labels.zzz` is not defined"),
        ("{% for x in zzz %}x{% endfor %}", "`zzz` is not defined"),
        ("{% for t in alert.tags %}{{ t.name }}{% endfor %}", "default"),
        ("a {{ alert.note }}", "null"),
        ("{{ labels[alert.tags[0]] }}", "default"),
    ] {
        let error = render(text, &context()).unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
        assert!(render_json(&json!({"k": text}), &context()).unwrap_err().to_string().starts_with("/k: "));
    }
}

#[test]
fn only_what_is_offered_compiles() {
    for (text, says) in [
        ("{% set x = 1 %}", "no statement `set`"),
        ("{% include '/etc/passwd' %}", "no statement `include`"),
        ("{%- macro x() %}", "no statement `macro`"),
        ("a\n{{ x | upcase }}", "line 2: there is no filter `upcase`"),
        ("{{ x | uper }}", "did you mean `upper`?"),
        ("{{ x | indent(99999999) }}", "no filter `indent`"),
        ("{% if x is defned %}{% endif %}", "did you mean `defined`?"),
        ("{% if x is not odd %}{% endif %}", "no test `odd`"),
        ("{{ 'x' * 100000000 }}", "`*` is not offered"),
        ("{{ x", "not a template"),
        ("{{ }}", "not a template"),
        ("{% if x %}", "not a template"),
    ] {
        let error = Template::compile(text).unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
    assert!(Template::compile(&"x".repeat(MAX_TEXT + 1)).is_err());
    for call in
        ["{{ range(9) }}", "{{ dict() }}", "{{ debug() }}", "{{ namespace() }}", "{{ labels.items() }}", "{{ self }}", "{{ super() }}"]
    {
        assert!(render(call, &context()).is_err(), "{call}");
    }
}

#[test]
fn every_offered_filter_and_test_exists() {
    for name in engine::FILTERS {
        let error = render(&format!("{{{{ nothing | {name} }}}}"), &context()).err().unwrap_or_default();
        assert!(!error.contains("unknown filter"), "{name}: {error}");
    }
    for name in engine::TESTS {
        let error = render(&format!("{{{{ labels is {name} }}}}"), &context()).err().unwrap_or_default();
        assert!(!error.contains("unknown test"), "{name}: {error}");
    }
}

#[test]
fn fuel_and_output_are_bounded() {
    let many = json!({"xs": vec![1; 3000], "big": "y".repeat(MAX_OUTPUT)});
    assert!(render("{% for a in xs %}{% for b in xs %}x{% endfor %}{% endfor %}", &many).unwrap_err().contains("steps"));
    assert!(render("{{ big }}", &many).is_ok());
    assert!(render("{{ big }}!", &many).unwrap_err().contains("larger than"));
    assert!(render_json(&json!("{{ [big, big] }}"), &many).unwrap_err().message.contains("larger than"));
    assert!(render("{{ big | replace('', big) }}", &many).unwrap_err().contains("too large"));
    assert!(render(&format!("{{{{ {}1{} }}}}", "(".repeat(1000), ")".repeat(1000)), &many).is_err());
}

/// Tests run with the small stacks that workers have.
#[test]
fn depth_is_bounded_before_the_stack_is() {
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("{1: ", "}"),
        ("1 ~ ", ""),
        ("1 + ", ""),
        ("not ", ""),
        ("-", ""),
        ("1 if 1 else ", ""),
        ("alert.", ""),
        ("'a' | replace(", ")"),
        ("1 == ", ""),
        ("[[1]][", "]"),
        ("true and ", ""),
    ] {
        for n in [1, 10, 20, 40, 60, 80, 99, 140, 198, 500, 2500] {
            let text = format!("{{{{ {}1{} }}}}", open.repeat(n), close.repeat(n));
            let _ = render(&text, &context());
            let _ = render_json(&json!(text), &context());
            let _ = render(&format!("{text}!{}", " | string".repeat(n)), &context());
        }
    }
    for n in [8, 15, 16, 17, 100, 900] {
        let _ = render(&format!("{}x{}", "{% if 1 %}".repeat(n), "{% endif %}".repeat(n)), &context());
        let _ = render(&format!("{}x{}", "{% for a in [1] %}".repeat(n / 2), "{% endfor %}".repeat(n / 2)), &context());
        let _ = render(&format!("{{{{ 1{} }}}}", " | string".repeat(n)), &context());
        let _ = render(&format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(n)), &context());
    }
}

#[test]
fn a_lone_expression_keeps_its_type() {
    let tree = json!({
        "number": "{{ alert.value }}", "text": "n={{ alert.value }}", "list": "{{alert.tags}}", "bool": "{{- alert.firing -}}", "null": "{{ alert.note }}",
        "label": "{{ labels.n }}", "converted": "{{ labels.n | int }}", "two": "{{ 1 }}{{ 2 }}", "plain": 5, "nested": [{"{{ key }}": "{{ labels }}"}],
        "blank": " {{ alert.value }}", "object": "{{ {'a': {'b': 1}} }}",
    });
    let rendered = render_json(&tree, &context()).unwrap();
    assert_eq!(rendered["nested"][0]["{{ key }}"]["service"], "api");
    assert_eq!(
        json!({"nested": 0, "number": 7, "text": "n=7", "list": ["a", "b"], "bool": true, "null": null, "label": "3", "converted": 3, "two": "12",
               "plain": 5, "blank": " 7", "object": {"a": {"b": 1}}}),
        {
            let mut r = rendered;
            r["nested"] = json!(0);
            r
        }
    );
    assert_eq!(Template::compile("{{ alert.value }}").unwrap().render_value(&context()).unwrap(), json!(7));
    assert_eq!(Template::compile("{{ alert.value }}").unwrap().render(&context()).unwrap(), "7");
}

#[test]
fn load_time_checks_see_every_variable() {
    let tree =
        json!({"a": "{{ labels.service }} {{ alert.value | default(fallback) }}", "b": ["{% for x in xs %}{{ x.y }}{% endfor %}"], "c": 1});
    let found: Vec<_> = variables_of_json(&tree).unwrap().into_iter().collect();
    assert_eq!(found, ["alert.value", "fallback", "labels.service", "xs"]);
    assert_eq!(variables_of_json(&json!({"a/b": ["", "{{"]})).unwrap_err().at, "/a~1b/1");
    assert!(Template::compile("no places").unwrap().is_literal());
    assert_eq!(serde_json::from_str::<Template>(r#""{{ x }}""#).unwrap(), "{{ x }}".parse().unwrap());
    assert!(serde_json::from_str::<Template>(r#""{{""#).is_err());
}

proptest! {
    #[test]
    fn any_label_comes_through_unchanged(value in "(?s).{0,60}") {
        let context = json!({"labels": {"x": value}});
        prop_assert_eq!(render("{{ labels.x }}!", &context).unwrap(), format!("{value}!"));
        prop_assert_eq!(render_json(&json!("{{ labels.x }}"), &context).unwrap(), json!(value));
    }

    #[test]
    fn no_template_panics(text in "[{}%#\"'|a-c .()*\\\\\n-]{0,40}") {
        if let Ok(template) = Template::compile(&text) {
            let _ = template.render(&json!({"a": {"b": 1}, "c": "x"}));
            let _ = template.render_value(&json!({"a": {"b": 1}, "c": "x"}));
        }
    }
}
