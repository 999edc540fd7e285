//! ISO 8601 durations as in Java's `Duration.parse` (`PnDTnHnMn.nS`), as far as the configuration needs: whether a text
//! is a non-negative duration.

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// Whether the text is a duration of zero or more.
pub(super) fn is_non_negative_duration(text: &str) -> bool {
    nanos(text).is_some_and(|nanos| nanos >= 0)
}

fn nanos(text: &str) -> Option<i128> {
    let (negated, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let rest = rest.strip_prefix(['P', 'p'])?;
    let (days, time) = match rest.split_once(['T', 't']) {
        Some((_, "")) => return None,
        Some((days, time)) => (days, time),
        None => (rest, ""),
    };
    if days.is_empty() && time.is_empty() {
        return None;
    }
    let total = amounts(days, "D")?.checked_add(amounts(time, "HMS")?)?;
    Some(if negated { -total } else { total })
}

/// Adds up amounts whose units come in the given order, each at most once.
fn amounts(mut text: &str, mut units: &str) -> Option<i128> {
    let mut total: i128 = 0;
    while !text.is_empty() {
        let end = text.find(|c: char| c.is_ascii_alphabetic())?;
        let unit = text[end..].chars().next()?.to_ascii_uppercase();
        let position = units.find(unit)?;
        units = &units[position + 1..];
        total = total.checked_add(amount(&text[..end], unit)?)?;
        text = &text[end + 1..];
    }
    Some(total)
}

fn amount(text: &str, unit: char) -> Option<i128> {
    let seconds = match unit {
        'D' => 86_400,
        'H' => 3_600,
        'M' => 60,
        _ => return seconds(text),
    };
    // Java parses these as a long; a larger number is not a duration.
    let count: i64 = text.parse().ok()?;
    Some(i128::from(count) * seconds * NANOS_PER_SECOND)
}

fn seconds(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once(['.', ',']).unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let nanos: i128 =
        if fraction.is_empty() { 0 } else { format!("{fraction:0<9}").parse().ok()? };
    let nanos = if whole.starts_with('-') { -nanos } else { nanos };
    Some(i128::from(seconds) * NANOS_PER_SECOND + nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_javas_documentation_parse() {
        assert_eq!(nanos("PT20.345S"), Some(20_345_000_000));
        assert_eq!(nanos("PT15M"), Some(900 * NANOS_PER_SECOND));
        assert_eq!(nanos("P2D"), Some(2 * 86_400 * NANOS_PER_SECOND));
        assert_eq!(nanos("P2DT3H4M"), Some((2 * 86_400 + 3 * 3_600 + 240) * NANOS_PER_SECOND));
        assert_eq!(nanos("PT-6H+3M"), Some((-6 * 3_600 + 180) * NANOS_PER_SECOND));
        assert_eq!(nanos("-PT6H"), Some(-6 * 3_600 * NANOS_PER_SECOND));
        assert_eq!(nanos("PT-0.5S"), Some(-500_000_000));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "P", "PT", "1H", "PT1", "P1H", "PT1S1H", "PT1.0123456789S", "PT1é", "P1DT"]
        {
            assert_eq!(nanos(text), None, "{text}");
        }
    }
}
