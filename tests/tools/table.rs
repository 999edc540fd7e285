//! The tables that Kafka's tools print: columns separated by blanks, one header line.

/// The cells of every line that is not blank, the header among them.
pub(crate) fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|row| !row.is_empty())
        .collect()
}

/// Selected columns, by name in the header, of all rows below it, sorted. What stands before the header is not looked at.
///
/// # Panics
/// When a column is missing: the tool printed something else.
#[track_caller]
pub(crate) fn columns(text: &str, names: &[&str]) -> Vec<Vec<String>> {
    let mut rows = rows(text).into_iter();
    let places = |header: Vec<&str>| -> Option<Vec<usize>> {
        names.iter().map(|name| header.iter().position(|cell| cell == name)).collect()
    };
    let Some(places) = rows.find_map(places) else { panic!("no columns {names:?} in\n{text}") };
    let pick = |row: Vec<&str>| places.iter().map(|&at| row[at].to_owned()).collect();
    let mut picked: Vec<Vec<String>> = rows.map(pick).collect();
    picked.sort();
    picked
}

#[test]
fn columns_are_picked_by_name() {
    let text = "Warn: x\n\nGROUP TOPIC LAG\nb t 1\na t 2\n";
    assert_eq!(columns(text, &["LAG", "GROUP"]), [["1", "b"], ["2", "a"]]);
}
