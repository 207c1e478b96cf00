//! `application/x-www-form-urlencoded`, as Slack sends it. Strict: a body that is not quite one is refused.

/// The fields of a form, in order; `None` if it is malformed.
pub(crate) fn decode(body: &[u8]) -> Option<Vec<(String, String)>> {
    let fields = body.split(|byte| *byte == b'&').filter(|field| !field.is_empty());
    let pair = |field: &[u8]| {
        let at = field.iter().position(|byte| *byte == b'=').unwrap_or(field.len());
        Some((unescape(&field[..at])?, unescape(field.get(at + 1..).unwrap_or_default())?))
    };
    fields.map(pair).collect()
}

fn unescape(text: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter().copied();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let mut decoded = [0];
                hex::decode_to_slice(digits, &mut decoded).ok()?;
                decoded[0]
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_what_browsers_encode_and_refuses_the_rest() {
        let pairs = decode(b"text=note+142+100%25+%26+more&empty=&bare").unwrap();
        let expected = [("text", "note 142 100% & more"), ("empty", ""), ("bare", "")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(decode(b"a=%4"), None);
        assert_eq!(decode(b"a=%zz"), None);
        assert_eq!(decode(b"a=%ff"), None, "not UTF-8");
    }
}
