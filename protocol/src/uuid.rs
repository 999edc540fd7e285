//! Kafka's 128-bit ids of topics, directories, incarnations and members.

use std::fmt;
use std::str::FromStr;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// An id, shown as 22 characters of URL-safe base64 without padding (`org.apache.kafka.common.Uuid`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Uuid([u8; 16]);

/// A text that is not a [`Uuid`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an id: 22 characters of URL-safe base64 are expected")]
pub struct UuidError(String);

impl Uuid {
    /// No id.
    pub const ZERO: Self = Self([0; 16]);
    /// The topic id of `__cluster_metadata` (`Uuid.METADATA_TOPIC_ID`).
    pub const METADATA_TOPIC: Self = Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// A version 4 id from random bytes. `None` for ids whose text would begin with `-` or that Kafka reserves: the
    /// caller retries with other bytes.
    pub fn from_random(mut bytes: [u8; 16]) -> Option<Self> {
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let id = Self(bytes);
        // 0xf8..=0xfb in the first byte make the first character '-'.
        (bytes[0] & 0xfc != 0xf8).then_some(id)
    }

    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        for position in 0..22_u32 {
            // 128 bits are 21 groups of six and one of two, which is padded with zeros on its right.
            let group = if position < 21 { bits >> (122 - 6 * position) } else { bits << 4 };
            let index = usize::try_from(group & 0x3f).expect("six bits fit");
            write!(f, "{}", char::from(ALPHABET[index]))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Uuid {
    type Err = UuidError;

    fn from_str(text: &str) -> Result<Self, UuidError> {
        let error = || UuidError(text.chars().take(64).collect());
        // Java's decoder accepts the padding too.
        let digits = text.strip_suffix("==").unwrap_or(text).as_bytes();
        if digits.len() != 22 {
            return Err(error());
        }
        let mut bits = 0_u128;
        for (position, digit) in digits.iter().enumerate() {
            let value = ALPHABET.iter().position(|c| c == digit).ok_or_else(error)? as u128;
            bits = if position < 21 { bits << 6 | value } else { bits << 2 | value >> 4 };
        }
        Ok(Self(bits.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_topic_id_reads_as_in_kafka() {
        assert_eq!(Uuid::METADATA_TOPIC.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
    }

    #[test]
    fn text_and_bytes_convert_both_ways() {
        let id: Uuid = "3Fqz1vE4QkiEUlmSCjTTzQ".parse().unwrap();
        assert_eq!(id.to_string(), "3Fqz1vE4QkiEUlmSCjTTzQ");
        assert_eq!("3Fqz1vE4QkiEUlmSCjTTzQ==".parse(), Ok(id));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "short", "3Fqz1vE4QkiEUlmSCjTTz!", "3Fqz1vE4QkiEUlmSCjTTzQQ"] {
            assert!(text.parse::<Uuid>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_random_id_never_begins_with_a_dash() {
        assert_eq!(Uuid::from_random([0xf9; 16]), None);
        let id = Uuid::from_random([7; 16]).unwrap();
        assert_eq!((id.as_bytes()[6] >> 4, id.as_bytes()[8] >> 6), (4, 2));
    }
}
