//! Finds `${provider:[path:]key}` in a text.

/// The parts of a placeholder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placeholder<'a> {
    /// The whole placeholder.
    pub(super) written: &'a str,
    pub(super) provider: &'a str,
    /// Empty if there is none.
    pub(super) path: &'a str,
    pub(super) key: &'a str,
}

/// A piece of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Text(&'a str),
    Placeholder(Placeholder<'a>),
}

/// Whether a text has a placeholder.
pub fn has_placeholder(text: &str) -> bool {
    next(text).is_some()
}

/// Splits a text into placeholders and the text between them.
pub(super) fn parts(text: &str) -> Vec<Part<'_>> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some((before, placeholder, after)) = next(rest) {
        parts.extend([Part::Text(before), Part::Placeholder(placeholder)]);
        rest = after;
    }
    parts.push(Part::Text(rest));
    parts
}

/// The first placeholder, with the text before and after it. `${HOME}` is not one: it has no provider.
fn next(text: &str) -> Option<(&str, Placeholder<'_>, &str)> {
    let mut from = 0;
    loop {
        let start = from + text[from..].find("${")?;
        let inside = start + "${".len();
        let end = inside + text[inside..].find('}')?;
        if let Some((provider, rest)) = text[inside..end].split_once(':') {
            let (path, key) = rest.split_once(':').unwrap_or(("", rest));
            let written = &text[start..=end];
            let placeholder = Placeholder { written, provider, path, key };
            return Some((&text[..start], placeholder, &text[end + 1..]));
        }
        from = inside;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(&str, &str, &str)> {
        let placeholders = parts(text).into_iter().filter_map(|part| match part {
            Part::Placeholder(found) => Some((found.provider, found.path, found.key)),
            Part::Text(_) => None,
        });
        placeholders.collect()
    }

    /// As `ConfigTransformer.DEFAULT_PATTERN` finds them.
    #[test]
    fn provider_path_and_key_are_told_apart_as_kafka_does() {
        assert_eq!(found("${env:A}"), [("env", "", "A")]);
        assert_eq!(found("${file:/etc/x.properties:a.b}"), [("file", "/etc/x.properties", "a.b")]);
        assert_eq!(found("${file:/a:b:c}"), [("file", "/a", "b:c")]);
        assert_eq!(found("x${env:A}y${env:B}z"), [("env", "", "A"), ("env", "", "B")]);
        assert_eq!(found("${HOME}/${env:A}"), [("env", "", "A")]);
        assert_eq!(found("${env:}"), [("env", "", "")]);
        assert_eq!(found("${:}"), [("", "", "")]);
        assert_eq!(found("${${env:A}"), [("${env", "", "A")]);
        for text in ["", "$", "${", "${env:A", "${HOME}", "{env:A}", "$ {env:A}"] {
            assert_eq!(found(text), [], "{text}");
            assert!(!has_placeholder(text));
        }
    }

    #[test]
    fn the_text_around_placeholders_is_kept() {
        let texts: Vec<_> = parts("a${env:A}b${HOME}")
            .into_iter()
            .map(|part| match part {
                Part::Text(text) => text,
                Part::Placeholder(found) => found.written,
            })
            .collect();
        assert_eq!(texts, ["a", "${env:A}", "b${HOME}"]);
    }
}
