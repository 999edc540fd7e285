//! Parses Java properties text (`java.util.Properties.load`), with the line number of every entry.
//!
//! Java reads ISO-8859-1, but most files are UTF-8. Valid UTF-8 is decoded as such, all other text as ISO-8859-1.

/// One `key=value` of a properties text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    pub key: String,
    pub value: String,
    /// The line on which the entry begins, from 1.
    pub line: usize,
}

/// Why a text is not valid properties text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PropertiesError {
    #[error("line {line}: \\u must be followed by four hexadecimal digits")]
    UnicodeEscape { line: usize },
    #[error("line {line}: \\u escapes do not pair up to a character")]
    LoneSurrogate { line: usize },
}

impl PropertiesError {
    /// The line of the mistake, from 1.
    pub fn line(self) -> usize {
        match self {
            Self::UnicodeEscape { line } | Self::LoneSurrogate { line } => line,
        }
    }
}

/// Parses a whole file, in order. A repeated key is in the result repeatedly: in Java the last one wins, and the caller
/// may warn about it.
pub fn parse(bytes: &[u8]) -> Result<Vec<Property>, PropertiesError> {
    let text = decode(bytes);
    logical_lines(&text)
        .into_iter()
        .map(|(line, content)| {
            let (key, value) = split_entry(&content);
            Ok(Property { key: unescape(key, line)?, value: unescape(value, line)?, line })
        })
        .collect()
}

fn decode(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        // A byte order mark would become part of the first key.
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text).to_owned(),
        Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
    }
}

/// Joins continued lines and drops comments and blank lines.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, natural) in natural_lines(text).into_iter().enumerate() {
        let content = natural.trim_start_matches(is_blank);
        let is_comment = content.starts_with(['#', '!']);
        if open.is_none() && (content.is_empty() || is_comment) {
            continue;
        }
        let (number, mut joined) = open.take().unwrap_or((index + 1, String::new()));
        match content.strip_suffix('\\').filter(|_| ends_in_odd_backslashes(content)) {
            Some(part) => {
                joined.push_str(part);
                open = Some((number, joined));
            }
            None => {
                joined.push_str(content);
                lines.push((number, joined));
            }
        }
    }
    lines.extend(open);
    lines
}

fn natural_lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(['\n', '\r']) {
        lines.push(&rest[..end]);
        let terminator = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[end + terminator..];
    }
    lines.push(rest);
    lines
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\x0c')
}

fn ends_in_odd_backslashes(text: &str) -> bool {
    text.bytes().rev().take_while(|&byte| byte == b'\\').count() % 2 == 1
}

/// Splits at the first separator that is not escaped by a backslash.
fn split_entry(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.char_indices().find(|&(_, c)| {
        let is_end = !escaped && (matches!(c, '=' | ':') || is_blank(c));
        escaped = c == '\\' && !escaped;
        is_end
    });
    let Some((end, _)) = end else { return (line, "") };
    let value = line[end..].trim_start_matches(is_blank);
    let value = value.strip_prefix(['=', ':']).unwrap_or(value);
    (&line[..end], value.trim_start_matches(is_blank))
}

fn unescape(text: &str, line: usize) -> Result<String, PropertiesError> {
    if !text.contains('\\') {
        return Ok(text.to_owned());
    }
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut buffer = [0; 2];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let unescaped = match (c, c == '\\') {
            (c, false) => c,
            (_, true) => match chars.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\x0c',
                Some('u') => {
                    units.push(unicode_escape(&mut chars, line)?);
                    continue;
                }
                Some(other) => other,
                None => break,
            },
        };
        units.extend_from_slice(unescaped.encode_utf16(&mut buffer));
    }
    String::from_utf16(&units).map_err(|_| PropertiesError::LoneSurrogate { line })
}

fn unicode_escape(chars: &mut std::str::Chars<'_>, line: usize) -> Result<u16, PropertiesError> {
    let digits: String = chars.take(4).collect();
    let is_hex = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex
        .then(|| u16::from_str_radix(&digits, 16).ok())
        .flatten()
        .ok_or(PropertiesError::UnicodeEscape { line })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<(String, String, usize)> {
        parse(text.as_bytes())
            .unwrap()
            .into_iter()
            .map(|property| (property.key, property.value, property.line))
            .collect()
    }

    fn entry(key: &str, value: &str, line: usize) -> (String, String, usize) {
        (key.to_owned(), value.to_owned(), line)
    }

    #[test]
    fn every_separator_of_java_is_taken() {
        assert_eq!(
            entries("a=1\nb: 2\nc 3\nd\t=\t4\ne\nf =: 5\n  g=6"),
            [
                entry("a", "1", 1),
                entry("b", "2", 2),
                entry("c", "3", 3),
                entry("d", "4", 4),
                entry("e", "", 5),
                entry("f", ": 5", 6),
                entry("g", "6", 7),
            ]
        );
    }

    #[test]
    fn comments_and_blank_lines_are_skipped_but_counted() {
        assert_eq!(entries("# a=1\n\n ! b=2\r\n\rc=3"), [entry("c", "3", 5)]);
    }

    #[test]
    fn a_continued_line_drops_the_indentation_of_the_next() {
        assert_eq!(
            entries("listeners=A://:1,\\\n    B://:2\nx=1"),
            [entry("listeners", "A://:1,B://:2", 1), entry("x", "1", 3)]
        );
        assert_eq!(entries("a=1\\\n# no comment"), [entry("a", "1# no comment", 1)]);
        assert_eq!(entries("a=1\\\\\nb=2"), [entry("a", "1\\", 1), entry("b", "2", 2)]);
        assert_eq!(entries("a=1\\"), [entry("a", "1", 1)]);
        assert_eq!(entries("a=1\\\n\nb=2"), [entry("a", "1", 1), entry("b", "2", 3)]);
    }

    #[test]
    fn escapes_are_resolved_in_keys_and_values() {
        assert_eq!(entries("a\\ b\\=c=x\\ty\\u00e9\\q"), [entry("a b=c", "x\ty\u{e9}q", 1)]);
        assert_eq!(entries("a=\\uD83D\\uDE00"), [entry("a", "\u{1f600}", 1)]);
        assert_eq!(entries("path=C:\\\\data"), [entry("path", "C:\\data", 1)]);
    }

    #[test]
    fn broken_escapes_name_their_line() {
        assert_eq!(parse(b"\na=\\u12"), Err(PropertiesError::UnicodeEscape { line: 2 }));
        assert_eq!(parse(b"a=\\u+123"), Err(PropertiesError::UnicodeEscape { line: 1 }));
        assert_eq!(parse(b"a=\\ud800"), Err(PropertiesError::LoneSurrogate { line: 1 }));
    }

    #[test]
    fn bytes_are_utf8_or_else_latin1() {
        assert_eq!(parse("a=é".as_bytes()).unwrap()[0].value, "é");
        assert_eq!(parse(b"a=\xe9").unwrap()[0].value, "é");
        assert_eq!(parse("\u{feff}a=1".as_bytes()).unwrap()[0].key, "a");
    }

    #[test]
    fn trailing_white_space_belongs_to_the_value() {
        assert_eq!(entries("a=1 "), [entry("a", "1 ", 1)]);
    }
}
