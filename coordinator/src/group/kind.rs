//! The kinds of group that share `__consumer_offsets`.

use super::classic::ClassicGroup;

/// A group of one partition, by its kind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Group {
    Classic(Box<ClassicGroup>),
    /// A group of a type that Klamm does not run. Its id is in use, and its records are not changed.
    NotRun(GroupType),
}

impl Group {
    pub(crate) fn as_classic(&self) -> Option<&ClassicGroup> {
        match self {
            Self::Classic(group) => Some(group),
            Self::NotRun(_) => None,
        }
    }

    pub(crate) fn as_classic_mut(&mut self) -> Option<&mut ClassicGroup> {
        match self {
            Self::Classic(group) => Some(group),
            Self::NotRun(_) => None,
        }
    }
}

/// The type of a group, by its records in Kafka's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupType {
    Classic,
    Consumer,
    Share,
    Streams,
}

impl GroupType {
    /// Kafka's name, as in ListGroups.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
            Self::Share => "share",
            Self::Streams => "streams",
        }
    }
}
