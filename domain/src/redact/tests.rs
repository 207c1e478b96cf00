//! Secrets of every shape, in every spelling, in every piece.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::*;

const ODD: [&str; 8] = [
    "++++++",
    ".*.*.*",
    "(a|b)+$^[",
    "p@ss w0rd/&=?",
    "日本語のパスワード",
    "quote\"back\\slash",
    "line one of it\nline two of it\n",
    "$ecret{{7*7}}",
];
const KEY: &str = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAxyzabcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJ\n\
                   QWERTYUIOPasdfghjklZXCVBNMqwertyuiopASDFGHJKLzxcvbnm1234567890abcd\n-----END RSA PRIVATE KEY-----";

/// Searches for all of [`ODD`].
static ALL: LazyLock<Redactor> = LazyLock::new(|| redactor(&ODD));

fn redactor(secrets: &[&str]) -> Redactor {
    Redactor::new(secrets).unwrap()
}

fn streamed(redactor: &Redactor, bytes: &[u8], sizes: &[usize]) -> Vec<u8> {
    let (mut stream, mut out, mut rest, mut turn) = (redactor.stream(), Vec::new(), bytes, 0);
    while !rest.is_empty() {
        let n = sizes[turn % sizes.len()].clamp(1, rest.len());
        out.extend(stream.push(&rest[..n]));
        (rest, turn) = (&rest[n..], turn + 1);
    }
    out.extend(stream.finish());
    out
}

#[test]
fn metacharacters_mean_nothing() {
    let all = redactor(&ODD);
    for secret in ODD {
        assert_eq!(all.redact(&format!("a {secret} b")).replace('\n', ""), "a [redacted] b", "{secret}");
    }
    for text in ["+++++", "ababab", "aaaaaa", "(a|b)", "p@ss", "plain text, 7*7"] {
        assert!(matches!(all.redact(text), Cow::Borrowed(t) if t == text), "{text}");
    }
}

#[test]
fn every_spelling_is_found() {
    for secret in ODD.map(str::trim) {
        let one = redactor(&[secret]);
        let json = serde_json::to_string(&serde_json::json!({ "k": secret })).unwrap();
        let nested = serde_json::to_string(&json).unwrap();
        let spellings = [
            STANDARD.encode(secret),
            URL_SAFE_NO_PAD.encode(secret),
            hex::encode(secret),
            hex::encode_upper(secret),
            secret
                .bytes()
                .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") })
                .collect::<String>(),
            json,
            nested,
        ];
        // The percent form above encodes everything; ours keeps the unreserved characters, so compare where they agree.
        for (i, spelling) in spellings.iter().enumerate() {
            let agrees = i != 4 || !secret.contains(['-', '.', '_', '~', '*', '(', ')', '!', '\'']);
            assert!(!agrees || one.redact(&format!("x={spelling};")).contains(MARK), "{secret}: {spelling}");
        }
        for user in ["", "u", "us", "use"] {
            let header = STANDARD.encode(format!("{user}:{secret}:tail"));
            let shown = one.redact(&header).into_owned();
            assert!(secret.len() < 9 || shown.contains(MARK), "{secret}: {header}");
        }
    }
    assert_eq!(redactor(&["p@ss w0rd/&=?"]).redact("u?p=p%40ss+w0rd%2F%26%3D%3F&x"), "u?p=[redacted]&x");
    assert_eq!(redactor(&["p@ss w0rd/&=?"]).redact(r#""p@ss w0rd/\u0026=?""#), "\"[redacted]\"");
}

#[test]
fn overlapping_secrets_leave_no_remains() {
    assert_eq!(redactor(&["abcdefg", "defghij"]).redact("xabcdefghijx"), "x[redacted]x");
    assert_eq!(redactor(&["abcdef", "abcdefghi"]).redact("abcdefghi abcdefgh"), "[redacted] [redacted]gh");
    assert_eq!(redactor(&["++++++"]).redact("+++++++++"), "[redacted]");
}

#[test]
fn one_line_of_a_multi_line_secret_is_enough() {
    let lines = redactor(&["first line of it\nsecond line of it\n\nx"]);
    assert_eq!(lines.redact("err: second line of it!"), "err: [redacted]!");
    assert_eq!(lines.redact("first line of it\r\nsecond line of it\r\n\r\nx"), "[redacted]");
    assert_eq!(lines.redact("x y"), "x y");
}

#[test]
fn short_and_huge_secrets_are_refused_by_number() {
    assert_eq!(Redactor::new(["long enough", "short"]).unwrap_err(), RedactError::TooShort(2));
    assert_eq!(Redactor::new([" \n     a\n"]).unwrap_err(), RedactError::TooShort(1));
    assert_eq!(Redactor::new(["x".repeat(MAX_SECRET + 1)]).unwrap_err(), RedactError::TooLong(1));
    let kept = [SecretString::from("topsecret\n")];
    assert_eq!(Redactor::of_secrets(&kept).unwrap().redact("a topsecret"), "a [redacted]");
    assert!(!format!("{:?}", redactor(&["topsecret"])).contains("topsecret"));
}

#[test]
fn the_second_net_knows_common_credentials() {
    let net = Redactor::default();
    for (text, shown) in [
        ("id AKIAIOSFODNN7EXAMPLE.", "id [redacted]."),
        ("t=xoxb-123456789012-abcdefABCDEF", "t=[redacted]"),
        ("xapp-1-A0000-123456", "[redacted]"),
        ("https://ghp_0123456789abcdefghijABCDEFGHIJ0123@github.com", "https://[redacted]@github.com"),
        ("Authorization: Bearer eyJhbGciOi.J9.abc-_~+/==\"", "Authorization: Bearer [redacted]\""),
        ("authorization: basic dXNlcjpwYXNz", "authorization: basic [redacted]"),
        ("postgres://app:hunter2@db:5432/x", "postgres://app:[redacted]@db:5432/x"),
        ("bearer of news", "bearer of news"),
        ("AKIA is a prefix, http://host:8080/a@b", "AKIA is a prefix, http://host:8080/a@b"),
        ("-----BEGIN CERTIFICATE-----\nabc", "-----BEGIN CERTIFICATE-----\nabc"),
    ] {
        assert_eq!(net.redact(text), shown);
    }
    assert_eq!(net.redact(&format!("a\n{KEY}\nb")), "a\n[redacted]\nb");
    assert_eq!(net.redact(&KEY.replace('\n', "\\n")), MARK);
    // The end of the key was cut off: what is there is still a key.
    assert_eq!(net.redact(&format!("a {}", &KEY[..90])), "a [redacted]");
}

#[test]
fn bytes_that_are_no_text_pass() {
    let one = redactor(&["topsecret"]);
    assert_eq!(one.redact_bytes(b"\xff\xfetopsecret\x80").as_ref(), b"\xff\xfe[redacted]\x80");
    assert_eq!(streamed(&one, b"\xff\xfetopsecret\x80", &[3]), b"\xff\xfe[redacted]\x80");
}

#[test]
fn a_stream_shows_whole_lines_at_once_and_hides_what_is_split() {
    let one = redactor(&["topsecret", "two\nlined secret"]);
    let mut stream = one.stream();
    assert_eq!(stream.push(b"line one\nline"), b"line one\n");
    assert_eq!(stream.push(b" two tops"), b"");
    assert_eq!(stream.push(b"ecret and more\n"), b"line two [redacted] and more\n");
    assert_eq!(stream.push(b"one\na two\n"), b"one\n");
    assert_eq!(stream.push(b"lined tree\n"), b"a two\nlined tree\n");
    assert_eq!(stream.push(b"two\nlined secret."), b"");
    assert_eq!(stream.finish(), b"[redacted].");
}

#[test]
fn endless_lines_and_keys_need_no_endless_memory() {
    let one = redactor(&["topsecret"]);
    let run = |text: &[u8]| {
        let mut stream = one.stream();
        let mut out = Vec::new();
        for chunk in text.chunks(1000) {
            out.extend(stream.push(chunk));
            assert!(stream.held() <= 70 * 1024, "{}", stream.held());
        }
        out.extend(stream.finish());
        String::from_utf8(out).unwrap()
    };
    let dots = ".".repeat(200_000);
    assert_eq!(run(format!("{dots}topsecret{dots}").as_bytes()), format!("{dots}[redacted]{dots}"));
    assert_eq!(run(format!("xoxb-{} after", "a1".repeat(100_000)).as_bytes()), "[redacted] after");
    assert_eq!(
        run(format!("k -----BEGIN PRIVATE KEY-----\n{}-----END PRIVATE KEY-----\nafter", "a1\n".repeat(100_000)).as_bytes()),
        "k [redacted]\nafter"
    );
    assert_eq!(run(format!("k -----BEGIN PRIVATE KEY-----\n{}", "a1\n".repeat(100_000)).as_bytes()), "k [redacted]");
}

/// Lines of a few hundred bytes with secrets, credentials and keys between ordinary words.
fn output() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        6 => "[a-zé .:=/\"-]{0,12}",
        1 => Just("\n".to_owned()),
        1 => Just("\r\n".to_owned()),
        2 => prop::sample::select(ODD.to_vec()).prop_map(str::to_owned),
        1 => prop::sample::select(ODD.to_vec()).prop_map(|s| STANDARD.encode(s)),
        1 => prop::sample::select(ODD.to_vec()).prop_map(|s| s[..s.floor_char_boundary(5)].to_owned()),
        1 => Just("Bearer abcdefgh12345678".to_owned()),
        1 => Just(KEY.to_owned()),
        1 => Just("AKIAIOSFODNN7EXAMPLE".to_owned()),
    ];
    prop::collection::vec(word, 0..24).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn no_secret_survives(text in output()) {
        let all = &*ALL;
        let shown = all.redact(&text);
        for secret in ODD.map(str::trim) {
            prop_assert!(!shown.contains(secret), "{} in {}", secret, shown);
            prop_assert!(!shown.contains(&STANDARD.encode(secret)));
        }
        prop_assert!(!shown.contains("MIIEow"));
    }

    #[test]
    fn chunks_do_not_matter(text in output(), sizes in prop::collection::vec(1usize..40, 1..5)) {
        let all = &*ALL;
        let whole = all.redact_bytes(text.as_bytes()).into_owned();
        let pieces = streamed(all, text.as_bytes(), &sizes);
        prop_assert_eq!(String::from_utf8_lossy(&pieces), String::from_utf8_lossy(&whole));
    }

    #[test]
    fn text_without_secrets_is_untouched(text in "[a-z0-9 \n]{0,200}") {
        prop_assert!(matches!(ALL.redact(&text), Cow::Borrowed(_)));
    }
}

#[test]
fn of_json_every_text_is_searched_however_deep() {
    let mut value = serde_json::json!({ "a": ["x hunter22 y", { "b": "hunter22" }], "n": 7, "none": null });
    redactor(&["hunter22"]).redact_value(&mut value);
    assert_eq!(value, serde_json::json!({ "a": ["x [redacted] y", { "b": "[redacted]" }], "n": 7, "none": null }));
}
