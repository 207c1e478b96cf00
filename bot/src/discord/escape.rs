//! Discord's markdown, made harmless: what others wrote reads as they wrote it, and does nothing.

/// Between two backticks, so that they do not end a fixed-width block.
const BREAK: char = '\u{200b}';

/// A text whose every character stands for itself: no emphasis, link, mention, emoji, timestamp, list or heading. Discord takes a
/// backslash before any punctuation as "this one literally".
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    for c in text.chars() {
        if is_special(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// How long [`escape`] makes a character.
pub(super) fn cost(c: char) -> usize {
    1 + usize::from(is_special(c))
}

/// A fixed-width block, in which Discord interprets nothing but its end.
pub(super) fn fence(text: &str) -> String {
    let broken = text.replace("``", &format!("`{BREAK}`")).replace("``", &format!("`{BREAK}`"));
    format!("```\n{broken}\n```")
}

/// How long [`fence`] makes a character.
pub(super) fn fence_cost(c: char) -> usize {
    1 + usize::from(c == '`')
}

/// Emphasis, code, spoilers, quotes, headings and lists; `<…>` tokens, links and their colon; `@everyone`; `:emoji:`; `1.` of a list.
fn is_special(c: char) -> bool {
    matches!(c, '\\' | '`' | '*' | '_' | '~' | '|' | '<' | '>' | '[' | ']' | '(' | ')' | '#' | '-' | '+' | ':' | '@' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_acts_is_escaped() {
        assert_eq!(escape("<@123> @everyone <#1> <t:1:R>"), r"\<\@123\> \@everyone \<\#1\> \<t\:1\:R\>");
        assert_eq!(escape("[a](https://x.y) **b** _i_ ~~s~~ `c` ||d||"), r"\[a\]\(https\://x\.y\) \*\*b\*\* \_i\_ \~\~s\~\~ \`c\` \|\|d\|\|");
        assert_eq!(escape("# h\n- l\n1. n\n> q\\"), "\\# h\n\\- l\n1\\. n\n\\> q\\\\");
        let text = "a_b:c 日本 `x`";
        assert_eq!(text.chars().map(cost).sum::<usize>(), escape(text).chars().count());
    }

    #[test]
    fn nothing_ends_a_fixed_width_block() {
        for text in ["```", "````", "`````` @everyone", "a``b```c", "``"] {
            let fenced = fence(text);
            let inside = &fenced[4..fenced.len() - 4];
            assert!(!inside.contains("``"), "{fenced}");
            assert_eq!(inside.replace(BREAK, ""), text);
            assert!(inside.chars().count() <= text.chars().map(fence_cost).sum(), "{fenced}");
        }
    }
}
