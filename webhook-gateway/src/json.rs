//! Looks over JSON before it is parsed: how deep it goes and how many values it holds.

/// Deepest nesting that is taken.
const MAX_DEPTH: usize = 64;
/// Most values that one body may hold: what a parser allocates grows with this, not with the bytes.
const MAX_VALUES: usize = 2_000_000;

/// Whether `text` is within bounds. Says nothing about whether it is JSON at all.
///
/// # Errors
/// Says which bound it breaks.
pub(crate) fn bounded(text: &[u8]) -> Result<(), &'static str> {
    let (mut depth, mut values) = (0_usize, 1_usize);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'{' | b'[' => {
                depth += 1;
                values += 1;
                if depth > MAX_DEPTH {
                    return Err("nested deeper than 64 levels");
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => continue,
        }
        if values > MAX_VALUES {
            return Err("more than 2,000,000 values");
        }
    }
    Ok(())
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => _ = bytes.next(),
            b'"' => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_and_number_are_bounded_and_strings_count_for_nothing() {
        let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(bounded(deep(64).as_bytes()), Ok(()));
        assert!(bounded(deep(65).as_bytes()).is_err());
        assert_eq!(bounded(format!(r#"["{}", "\"{}", "\\"]"#, "[".repeat(100), "{".repeat(100)).as_bytes()), Ok(()));
        let wide = format!("[{}1]", "1,".repeat(MAX_VALUES - 3));
        assert_eq!(bounded(wide.as_bytes()), Ok(()));
        let wider = format!("[{}1]", "1,".repeat(MAX_VALUES));
        assert!(bounded(wider.as_bytes()).is_err());
    }
}
