//! What hostile text looks like after cleaning.

use proptest::prelude::*;

use super::*;

/// Label values that somebody with bad intent would send, by what they aim at.
pub(crate) fn hostile() -> Vec<String> {
    let mut all: Vec<String> = [
        // shells and options
        "; rm -rf /",
        "$(reboot)",
        "`id`",
        "&& halt",
        "| sh",
        "--help",
        "-rf",
        "-o ProxyCommand=id",
        "a\nb",
        "a'b\"c",
        "%0a",
        "${IFS}",
        "*",
        "~",
        ">/etc/passwd",
        // templates and expressions
        "{{ 7*7 }}",
        "{% for i in range(99999999) %}x{% endfor %}",
        "{{ self }}",
        "{# x #}",
        "{{",
        "}}",
        "{%",
        "${7*7}",
        "#{7*7}",
        "<%= 7 %>",
        "{{ labels }}",
        "{{ ''.__class__ }}",
        "{% include '/etc/passwd' %}",
        "{% raw %}",
        "{{{",
        "{% set x=1 %}",
        "%s%n",
        "{0}",
        "true || true",
        "\" || \"\" == \"",
        // markup and mentions
        "<script>alert(1)</script>",
        "<!channel>",
        "<!here>",
        "@everyone",
        "<@U123>",
        "<@&1>",
        "*bold*",
        "_i_",
        "~s~",
        "```x```",
        "<https://x|y>",
        "[a](javascript:x)",
        "&lt;",
        "</title>",
        "'\"><img src=x onerror=x>",
        "||spoiler||",
        "> quote",
        "# h1",
        "\\",
        "\\n",
        "\\u0000",
        "a&b;",
        "<b",
        ":boom:",
        "&#x3c;script&#x3e;",
        // SQL, paths, hosts, headers
        "'; DROP TABLE x;--",
        "1 OR 1=1",
        "../../etc/passwd",
        "/dev/zero",
        "C:\\x",
        "file:///etc/passwd",
        "http://169.254.169.254/",
        "a\r\nSet-Cookie: x=1",
        "%2e%2e%2f",
        "::1",
        // control characters, terminals
        "\u{1b}[31mred",
        "\u{1b}]0;t\u{7}",
        "\u{1b}]8;;http://x\u{7}a",
        "\u{8}\u{8}x",
        "a\0b",
        "\0",
        "\r",
        "\t",
        "\u{b}\u{c}",
        "\u{7f}",
        "\u{9b}31m",
        "\u{85}",
        "\u{90}q\u{9c}",
        // direction, invisibles, look-alikes
        "\u{202e}gpj.exe",
        "\u{2066}a\u{2069}",
        "\u{200f}",
        "\u{61c}",
        "a\u{200b}b",
        "a\u{200d}b",
        "\u{feff}x",
        "\u{2060}",
        "\u{ad}",
        "\u{e0041}\u{e007f}",
        "\u{3164}",
        "\u{115f}",
        "а",
        "ｅｖｉｌ",
        "e\u{301}\u{301}\u{301}",
        "\u{2028}x\u{2029}",
        "👩\u{200d}💻",
        "🇩🇪",
        "\u{fffe}",
        "\u{10ffff}",
        "\u{1d173}",
        "\u{fe00}",
        // emptiness and numbers
        "",
        " ",
        "null",
        "NaN",
        "-1",
        "1e999",
        "0x10",
        "undefined",
        "[]",
        "{}",
        "\"",
    ]
    .map(str::to_owned)
    .into();
    all.extend(["x".repeat(100_000), "{{".repeat(5_000), "\u{202e}".repeat(1_000), "\u{1b}[".repeat(1_000), "👩\u{200d}".repeat(1_000)]);
    all
}

fn is_safe_char(c: char) -> bool {
    !(c.is_control() || is_direction(c) || is_invisible(c) || matches!(c, '\u{2028}' | '\u{2029}'))
}

#[test]
fn a_hundred_hostile_strings_become_one_plain_bounded_line() {
    let hostile = hostile();
    assert!(hostile.len() > 100);
    for text in &hostile {
        for max in [0, 1, 8, 150] {
            let line = clean_line(text, max);
            assert!(line.chars().count() <= max, "{text:?}");
            assert!(line.chars().all(is_safe_char), "{text:?} became {line:?}");
            assert!(clean_block(text, max).chars().all(|c| is_safe_char(c) || "\n\t".contains(c)), "{text:?}");
        }
    }
}

#[test]
fn what_is_dangerous_stays_visible() {
    for (text, line) in [
        ("plain", "plain"),
        ("a\r\nb\tc\n", "a b c "),
        ("\u{1b}[31mred\0", "␛[31mred␀"),
        ("\u{202e}gpj.exe", "\\u{202e}gpj.exe"),
        ("pay\u{200b}pal", "paypal"),
        ("\u{9b}31m", "\\u{9b}31m"),
        ("{{ 7*7 }} <!channel>", "{{ 7*7 }} <!channel>"),
        ("naïve 日本語 ❤\u{fe0f}", "naïve 日本語 ❤\u{fe0f}"),
    ] {
        assert_eq!(clean_line(text, 100), line);
    }
    assert_eq!(clean_block("a\r\n\tb\rc\u{2028}d\0", 100), "a\n\tb\nc\nd␀");
}

#[test]
fn cuts_fall_between_characters_and_show() {
    assert_eq!(clean_line("日本語", 3), "日本語");
    assert_eq!(clean_line("日本語!", 3), "日本…");
    assert_eq!(clean_line("ab", 1), "…");
    assert_eq!(clean_line("ab", 0), "");
    // An escape is never cut in half.
    assert_eq!(clean_line("a\u{202e}b", 8), "a…");
    assert_eq!(clean_line("a\u{202e}b", 10), "a\\u{202e}b");
    assert_eq!(shorten("日本語", 3), "日本語");
    assert_eq!(shorten("日本語", 2), "日…");
    assert_eq!(shorten("x", 0), "");
    assert_eq!(shorten_bytes("日本語", 9), "日本語");
    assert_eq!(shorten_bytes("日本語", 8), "日…");
    assert_eq!(shorten_bytes("日本語", 2), "");
    assert_eq!(escape_nul("a\0b"), "a␀b");
    assert!(matches!(escape_nul("ab"), Cow::Borrowed(_)));
}

#[test]
fn labels_are_bounded_and_the_cuts_counted() {
    let plain = BTreeMap::from([("alertname".to_owned(), "Down".to_owned())]);
    assert_eq!(cap_labels(plain.clone()), (plain, 0));

    let mut many: BTreeMap<_, _> = (0..100).map(|n| (format!("a{n:03}"), "x".to_owned())).collect();
    many.insert("severity".into(), "page".into());
    many.insert("alertname".into(), "é".repeat(3000));
    let (kept, cut) = cap_labels(many);
    assert_eq!(kept.len(), MAX_LABELS);
    assert_eq!(cut, 100 - 62 + 1);
    assert_eq!(kept["severity"], "page");
    assert!(kept["alertname"].len() <= MAX_VALUE && kept["alertname"].ends_with('…'));

    let long = |end: &str| format!("{}{end}", "n".repeat(300));
    let (kept, cut) = cap_labels(BTreeMap::from([(long("a"), "1".into()), (long("b"), "2".into()), ("z\0".into(), "\0".into())]));
    assert_eq!((kept.len(), cut), (2, 2));
    assert_eq!(kept["z␀"], "␀");

    let (kept, cut) = cap_annotations(BTreeMap::from([("text".to_owned(), "x".repeat(10_000))]));
    assert_eq!((kept["text"].len(), cut), (10_000, 0));
}

proptest! {
    #[test]
    fn cleaning_bounds_anything(text in "(?s).{0,80}", max in 0usize..40) {
        let line = clean_line(&text, max);
        prop_assert!(line.chars().count() <= max);
        prop_assert!(line.chars().all(is_safe_char));
        // A second pass changes nothing: what was cleaned is clean.
        prop_assert_eq!(clean_line(&line, max), line);
    }

    #[test]
    fn capped_labels_obey_every_bound(pairs in prop::collection::btree_map("[ab\0é]{0,4}([yz]{300})?", "[a\0é]{0,3}", 0..90)) {
        let before = pairs.len();
        let (kept, cut) = cap_labels(pairs);
        prop_assert!(kept.len() <= MAX_LABELS && before - kept.len() <= cut as usize);
        prop_assert!(kept.iter().all(|(n, v)| n.len() <= MAX_NAME && v.len() <= MAX_VALUE && !n.contains('\0') && !v.contains('\0')));
    }
}
