//! Compares `docs/` with the code, so that none of its tables can be wrong.

mod architecture;
mod compose;
mod configuration;
mod errors;
mod limits;

/// The cells of every table row of a Markdown text that stands under `heading`
/// (or anywhere, if that is empty); without the heads of the tables.
fn rows(markdown: &str, heading: &str) -> Vec<Vec<String>> {
    let mut inside = heading.is_empty();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for line in markdown.lines() {
        if !heading.is_empty() && line.starts_with('#') {
            inside = line.trim_start_matches('#').trim() == heading;
        }
        if !inside || !line.starts_with('|') {
            continue;
        }
        if line.trim_matches(['|', '-', ':']).is_empty() {
            // What stands above the rule is the head.
            rows.pop();
            continue;
        }
        let cells = line.trim_matches('|').split('|');
        rows.push(cells.map(|cell| cell.trim().to_owned()).collect());
    }
    rows
}

/// The text between backticks, if that is all of a cell.
fn code(cell: &str) -> &str {
    cell.trim_matches('`')
}

#[test]
fn rows_are_those_of_the_tables_under_the_heading() {
    let markdown = "# A\n| h |\n|---|\n| 1 |\n\n## B\n| h | i |\n|---|---:|\n| 2 | `x` |\n";
    assert_eq!(rows(markdown, "B"), [["2", "`x`"]]);
    assert_eq!(rows(markdown, "").len(), 2);
    assert_eq!(code(&rows(markdown, "B")[0][1]), "x");
}
