//! Answers as tables: columns as wide as they need, nothing cut, control characters made visible.

use domain::text::clean_line;
use serde_json::Value;

/// Longest cell, in characters.
const CELL: usize = 100;

/// A table with a header.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return "Nothing.".to_owned();
    }
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| clean_line(cell, CELL)).collect()).collect();
    let wide = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(wide).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(header.to_vec())];
    lines.extend(rows.iter().map(|row| line(row.iter().map(String::as_str).collect())));
    lines.join("\n")
}

/// The items of a list.
pub(crate) fn items(answer: &Value) -> &[Value] {
    answer["items"].as_array().map_or(&[], Vec::as_slice)
}

/// A field as text.
pub(crate) fn text(value: &Value, field: &str) -> String {
    match &value[field] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_escapes_do_not_reach_the_terminal() {
        let rows = [vec!["1".to_owned(), "a\u{1b}[31mb".to_owned()], vec!["142".to_owned(), "c".to_owned()]];
        let table = table(&["#", "title"], &rows);
        assert!(!table.contains('\u{1b}'), "{table:?}");
        assert!(table.starts_with("#    title\n1    "), "{table:?}");
    }
}
