//! Decodes invalid UTF-8 as Java's `String(byte[], UTF_8)` does.
//!
//! Kafka does not refuse such strings. Names that are equal for Kafka must be equal here too, so the replacement
//! characters must have the same number and positions.

/// The maximum size of the result of [`decode`]: each byte may become a replacement character.
pub(super) fn max_len(len: usize) -> usize {
    len.saturating_mul(char::REPLACEMENT_CHARACTER.len_utf8())
}

/// The text, with a replacement character for each part that is not UTF-8. Allocates `max_len` once.
pub(super) fn decode(mut bytes: &[u8]) -> String {
    let mut text = String::with_capacity(max_len(bytes.len()));
    while let Some(chunk) = bytes.utf8_chunks().next() {
        text.push_str(chunk.valid());
        let rest = &bytes[chunk.valid().len()..];
        if !rest.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
        bytes = &rest[replaced_as_one(rest, chunk.invalid().len())..];
    }
    text
}

/// The number of bytes at the front of `rest` that one replacement character replaces; `maximal_subpart` is Unicode's
/// recommendation. Java differs for surrogates, which it replaces as one.
fn replaced_as_one(rest: &[u8], maximal_subpart: usize) -> usize {
    match rest {
        [0xed, 0xa0..=0xbf, 0x80..=0xbf, ..] => 3,
        [0xed, 0xa0..=0xbf, ..] => 2,
        _ => maximal_subpart,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tests/golden_messages.rs` compares many more with Java's results.
    #[test]
    fn a_surrogate_is_replaced_by_one_character_and_other_stray_bytes_by_one_each() {
        assert_eq!(decode(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(decode(b"\xed\xa0\x80"), "\u{fffd}");
        assert_eq!(decode(b"\xed\xa0\x80\xed\xb0\x80"), "\u{fffd}\u{fffd}");
        assert_eq!(decode(b"\xed\xa0x"), "\u{fffd}x");
        assert_eq!(decode(b"\xc0\x80"), "\u{fffd}\u{fffd}");
        assert_eq!(decode(b"\xf0\x9f\x9a"), "\u{fffd}");
    }

    #[test]
    fn no_text_grows_past_the_length_that_is_charged_for_it() {
        for bytes in [&[0xff; 100][..], &[0xed; 100], b"\xed\xa0\x80", "größe".as_bytes()] {
            assert!(decode(bytes).len() <= max_len(bytes.len()));
            assert_eq!(decode(bytes).capacity(), max_len(bytes.len()));
        }
    }
}
