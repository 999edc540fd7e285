//! The names of the files in a partition's directory (Kafka's `LogFileUtils`).

use klamm_protocol::ids::Offset;

/// The suffix of a file that will be removed after `file.delete.delay.ms`.
pub const DELETED_SUFFIX: &str = ".deleted";
/// The suffix of a segment that the log cleaner is writing.
pub const CLEANED_SUFFIX: &str = ".cleaned";
/// The suffix of a finished segment of the log cleaner that will replace older ones.
pub const SWAP_SUFFIX: &str = ".swap";

/// The kind of a file with an offset in its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    Log,
    OffsetIndex,
    TimeIndex,
    TxnIndex,
    ProducerSnapshot,
}

impl FileKind {
    /// The files of a segment, the records first.
    pub const OF_A_SEGMENT: [Self; 4] =
        [Self::Log, Self::OffsetIndex, Self::TimeIndex, Self::TxnIndex];
    /// The files that are derived from the records of a segment.
    pub const INDEXES: [Self; 3] = [Self::OffsetIndex, Self::TimeIndex, Self::TxnIndex];

    pub fn suffix(self) -> &'static str {
        match self {
            Self::Log => ".log",
            Self::OffsetIndex => ".index",
            Self::TimeIndex => ".timeindex",
            Self::TxnIndex => ".txnindex",
            Self::ProducerSnapshot => ".snapshot",
        }
    }

    /// The file name at an offset: 20 digits and the suffix.
    pub fn name(self, offset: Offset) -> String {
        format!("{offset:020}{}", self.suffix())
    }

    /// Parses a file name; `None` for names with further suffixes and for other files.
    pub fn parse(name: &str) -> Option<(Self, Offset)> {
        let (digits, suffix) = name.split_at_checked(name.find('.')?)?;
        let offset = parse_offset(digits)?;
        let kinds = Self::OF_A_SEGMENT.into_iter().chain([Self::ProducerSnapshot]);
        kinds.into_iter().find(|kind| kind.suffix() == suffix).map(|kind| (kind, offset))
    }
}

/// The offset at the beginning of a file name, before the first dot.
pub fn offset_of(name: &str) -> Option<Offset> {
    parse_offset(name.split_once('.')?.0)
}

fn parse_offset(digits: &str) -> Option<Offset> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_twenty_digits_and_come_back() {
        assert_eq!(FileKind::Log.name(42), "00000000000000000042.log");
        for kind in FileKind::OF_A_SEGMENT {
            assert_eq!(FileKind::parse(&kind.name(i64::MAX)), Some((kind, i64::MAX)));
        }
        assert_eq!(
            FileKind::parse("00000000000000000007.snapshot"),
            Some((FileKind::ProducerSnapshot, 7))
        );
    }

    #[test]
    fn other_files_are_left_alone() {
        for name in [
            "leader-epoch-checkpoint",
            "partition.metadata",
            "00000000000000000000.log.deleted",
            "00000000000000000042-0000000001.checkpoint",
            ".log",
            "99999999999999999999.log",
            "-0000000000000000001.log",
        ] {
            assert_eq!(FileKind::parse(name), None, "{name}");
        }
        assert_eq!(offset_of("00000000000000000005.index.swap"), Some(5));
    }
}
