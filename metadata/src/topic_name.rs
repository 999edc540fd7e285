//! Validation of topic names, and names that collide as metric names.

use std::borrow::Cow;

/// The maximum length of a topic name (Topic.MAX_NAME_LENGTH), in UTF-16 units as in Kafka.
pub const MAX_NAME_LENGTH: usize = 249;

/// Committed offsets and groups.
pub const GROUP_METADATA_TOPIC: &str = "__consumer_offsets";
/// Transaction coordinators' state.
pub const TRANSACTION_STATE_TOPIC: &str = "__transaction_state";
/// Share group coordinators' state.
pub const SHARE_GROUP_STATE_TOPIC: &str = "__share_group_state";
/// The metadata log itself, which is never a topic of the image.
pub const CLUSTER_METADATA_TOPIC: &str = "__cluster_metadata";

/// Why a name is not a valid topic name. The texts are those of Kafka's Topic.validate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopicName {
    /// The empty string.
    #[error("Topic name is invalid: the empty string is not allowed")]
    Empty,
    /// `.` or `..`, which are not file names.
    #[error("Topic name is invalid: '{name}' is not allowed")]
    Dots {
        /// The requested name.
        name: String,
    },
    /// More than [`MAX_NAME_LENGTH`] characters.
    #[error(
        "Topic name is invalid: the length of '{name}' is longer than the max allowed length {MAX_NAME_LENGTH}"
    )]
    TooLong {
        /// The requested name.
        name: String,
    },
    /// A character outside `[a-zA-Z0-9._-]`.
    #[error(
        "Topic name is invalid: '{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
    )]
    IllegalCharacter {
        /// The requested name.
        name: String,
    },
}

/// Checks a topic name as Kafka's Topic.validate does.
pub fn validate(name: &str) -> Result<(), InvalidTopicName> {
    let owned = || name.to_owned();
    if name.is_empty() {
        Err(InvalidTopicName::Empty)
    } else if name == "." || name == ".." {
        Err(InvalidTopicName::Dots { name: owned() })
    } else if name.encode_utf16().count() > MAX_NAME_LENGTH {
        Err(InvalidTopicName::TooLong { name: owned() })
    } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        Err(InvalidTopicName::IllegalCharacter { name: owned() })
    } else {
        Ok(())
    }
}

/// Whether the name has a character that metric names cannot distinguish.
pub fn has_collision_chars(name: &str) -> bool {
    name.contains(['.', '_'])
}

/// The name that all colliding names share.
pub fn unify_collision_chars(name: &str) -> Cow<'_, str> {
    if name.contains('.') { Cow::Owned(name.replace('.', "_")) } else { Cow::Borrowed(name) }
}

/// Whether the topic is internal (Topic.isInternal).
pub fn is_internal(name: &str) -> bool {
    matches!(name, GROUP_METADATA_TOPIC | TRANSACTION_STATE_TOPIC | SHARE_GROUP_STATE_TOPIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_pass_and_each_bad_name_says_why() {
        assert_eq!(validate("a.B_9-"), Ok(()));
        assert_eq!(validate(&"x".repeat(249)), Ok(()));
        assert_eq!(validate(""), Err(InvalidTopicName::Empty));
        assert_eq!(
            validate("..").unwrap_err().to_string(),
            "Topic name is invalid: '..' is not allowed"
        );
        assert!(matches!(validate(&"x".repeat(250)), Err(InvalidTopicName::TooLong { .. })));
        assert_eq!(
            validate("a b").unwrap_err().to_string(),
            "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        );
        assert!(matches!(validate("é"), Err(InvalidTopicName::IllegalCharacter { .. })));
    }

    #[test]
    fn dots_and_underscores_collide() {
        assert!(has_collision_chars("a.b") && has_collision_chars("a_b"));
        assert!(!has_collision_chars("a-b"));
        assert_eq!(unify_collision_chars("a.b_c"), "a_b_c");
        assert_eq!(unify_collision_chars("a_b"), "a_b");
    }

    #[test]
    fn the_metadata_log_is_not_an_internal_topic() {
        assert!(is_internal(GROUP_METADATA_TOPIC));
        assert!(!is_internal(CLUSTER_METADATA_TOPIC));
    }
}
