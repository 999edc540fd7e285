//! The tables that Kafka's tools print: columns separated by blanks, one header line.

/// Selected columns, by name in the header, of all rows below it.
///
/// # Panics
/// When a column is missing: the tool printed something else.
#[track_caller]
pub(crate) fn columns(text: &str, names: &[&str]) -> Vec<Vec<String>> {
    let mut rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let places = |header: Vec<&str>| -> Option<Vec<usize>> {
        names.iter().map(|name| header.iter().position(|cell| cell == name)).collect()
    };
    let Some(places) = rows.find_map(places) else { panic!("no columns {names:?} in\n{text}") };
    rows.filter(|row| !row.is_empty())
        .map(|row| places.iter().map(|&at| row[at].to_owned()).collect())
        .collect()
}
