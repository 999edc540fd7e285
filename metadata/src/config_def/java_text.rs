//! Parses and prints text as Java does, where Kafka's validation or answers depend on it: `String.trim`,
//! `Double.parseDouble`, `Double.toString`, `List.toString`.

/// Same as `String.trim`: removes characters up to U+0020 at both ends.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c <= ' ')
}

/// Splits a LIST value at commas with the white space of Java's `\s` around them. Empty parts
/// stay; an empty value has no parts.
pub(crate) fn split_list(text: &str) -> Vec<String> {
    let trimmed = trim(text);
    if trimmed.is_empty() {
        return Vec::new();
    }
    let is_space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r');
    trimmed.split(',').map(|part| part.trim_matches(is_space).to_owned()).collect()
}

/// Parses a decimal floating-point number as `Double.parseDouble` does, with an `f` or `d` suffix and the words NaN and
/// Infinity (in exactly this spelling), but not hexadecimal.
pub(crate) fn parse_double(text: &str) -> Option<f64> {
    let text = trim(text);
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    match unsigned {
        "NaN" => return Some(f64::NAN),
        "Infinity" if text.starts_with('-') => return Some(f64::NEG_INFINITY),
        "Infinity" => return Some(f64::INFINITY),
        _ => {}
    }
    let digits = text.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(text);
    let is_number = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    if digits.chars().all(is_number) { digits.parse().ok() } else { None }
}

/// Prints a number as `Double.toString` does: at least one digit after the point, and scientific
/// notation outside 10^-3 to 10^7.
pub(crate) fn print_double(number: f64) -> String {
    let magnitude = number.abs();
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if magnitude.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if magnitude == 0.0 || (1e-3..1e7).contains(&magnitude) {
        return format!("{number:?}");
    }
    let scientific = format!("{number:E}");
    let (mantissa, exponent) = scientific.split_once('E').expect("{:E} prints an exponent");
    let point = if mantissa.contains('.') { "" } else { ".0" };
    format!("{mantissa}{point}E{exponent}")
}

/// Prints a list as `List.toString` does.
pub(crate) fn print_list(values: &[String]) -> String {
    format!("[{}]", values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trimming_removes_control_characters_but_no_unicode_space() {
        assert_eq!(trim("\u{1} a b \t\n"), "a b");
        assert_eq!(trim("\u{a0}a"), "\u{a0}a");
    }

    #[test]
    fn a_list_keeps_its_empty_parts() {
        assert_eq!(split_list(""), Vec::<String>::new());
        assert_eq!(split_list("  "), Vec::<String>::new());
        assert_eq!(split_list(" a , b,,c "), ["a", "b", "", "c"]);
        assert_eq!(split_list(","), ["", ""]);
        assert_eq!(split_list("a b"), ["a b"]);
    }

    #[test]
    fn doubles_are_read_as_java_reads_them() {
        assert_eq!(parse_double("0.5"), Some(0.5));
        assert_eq!(parse_double(" 1e3 "), Some(1000.0));
        assert_eq!(parse_double("1d"), Some(1.0));
        assert_eq!(parse_double(".5F"), Some(0.5));
        assert_eq!(parse_double("-Infinity"), Some(f64::NEG_INFINITY));
        for refused in ["", "inf", "nan", "infinity", "0x1p3", "1_0", "d", "1dd"] {
            assert_eq!(parse_double(refused), None, "{refused:?}");
        }
    }

    #[test]
    fn doubles_are_printed_as_java_prints_them() {
        assert_eq!(print_double(0.5), "0.5");
        assert_eq!(print_double(1.0), "1.0");
        assert_eq!(print_double(0.0), "0.0");
        assert_eq!(print_double(0.0001), "1.0E-4");
        assert_eq!(print_double(12_345_678.9), "1.23456789E7");
        assert_eq!(print_double(9_999_999.0), "9999999.0");
    }
}
