//! The names of partition directories: `<topic>-<partition>`, and those with `-future`, `-delete` and `-stray`
//! (`LocalLog.parseTopicPartitionName`).

use klamm_protocol::Uuid;
use klamm_protocol::ids::PartitionIndex;

/// The maximum length of a file name.
const MAX_NAME: usize = 255;

/// The kind of a partition directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DirKind {
    /// The log in use.
    Current,
    /// A future replica, which will replace the log in another log directory (`-future`).
    Future,
    /// A deleted log, which will be removed (`-delete`).
    Delete,
    /// A log without a replica on this broker in the metadata (`-stray`).
    Stray,
}

impl DirKind {
    fn suffix(self) -> &'static str {
        match self {
            Self::Current => "",
            Self::Future => "-future",
            Self::Delete => "-delete",
            Self::Stray => "-stray",
        }
    }
}

/// The parts of a directory's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionDirName {
    /// The topic; in a `-delete` name it may be truncated.
    pub topic: String,
    pub partition: PartitionIndex,
    pub kind: DirKind,
}

impl PartitionDirName {
    /// Parses a name; `None` if it is not a partition directory's.
    pub fn parse(name: &str) -> Option<Self> {
        let marked = [DirKind::Future, DirKind::Delete, DirKind::Stray]
            .into_iter()
            .find_map(|kind| Some((kind, name.strip_suffix(kind.suffix())?)));
        let (kind, plain) = match marked {
            None => (DirKind::Current, name),
            Some((kind, rest)) => {
                let (plain, unique) = rest.rsplit_once('.')?;
                (!unique.is_empty()).then_some((kind, plain))?
            }
        };
        let (topic, partition) = plain.rsplit_once('-')?;
        let is_number = partition.bytes().all(|byte| byte.is_ascii_digit());
        let partition = partition.parse().ok().filter(|_| is_number)?;
        (!topic.is_empty()).then(|| Self { topic: topic.to_owned(), partition, kind })
    }

    /// The name of the directory in use.
    pub fn current(topic: &str, partition: PartitionIndex) -> String {
        format!("{topic}-{partition}")
    }

    /// The name of another kind, made unique by an id. Long topic names are truncated in `-delete` names.
    pub fn marked(topic: &str, partition: PartitionIndex, kind: DirKind, unique: Uuid) -> String {
        assert!(kind != DirKind::Current, "the directory in use carries no mark");
        let unique: String = unique.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let rest = format!("-{partition}.{unique}{}", kind.suffix());
        let kept = topic.len().min(MAX_NAME.saturating_sub(rest.len()));
        let topic = if kind == DirKind::Future { topic } else { &topic[..kept] };
        format!("{topic}{rest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str) -> Option<(String, PartitionIndex, DirKind)> {
        PartitionDirName::parse(name).map(|name| (name.topic, name.partition, name.kind))
    }

    #[test]
    fn topics_may_hold_dots_and_dashes() {
        for (name, topic, partition) in
            [("a-0", "a", 0), ("a.b-c.d-12", "a.b-c.d", 12), ("my-delete-3", "my-delete", 3)]
        {
            assert_eq!(parsed(name), Some((topic.to_owned(), partition, DirKind::Current)));
            assert_eq!(PartitionDirName::current(topic, partition), name);
        }
    }

    #[test]
    fn marks_come_back() {
        for kind in [DirKind::Future, DirKind::Delete, DirKind::Stray] {
            let name = PartitionDirName::marked("a.b-c", 7, kind, Uuid::METADATA_TOPIC);
            assert_eq!(parsed(&name), Some(("a.b-c".to_owned(), 7, kind)), "{name}");
        }
        let long = "t".repeat(249);
        let name = PartitionDirName::marked(&long, 0, DirKind::Delete, Uuid::METADATA_TOPIC);
        assert_eq!(name.len(), 255);
        assert_eq!(parsed(&name).map(|(_, partition, _)| partition), Some(0));
    }

    #[test]
    fn other_directories_are_no_partitions() {
        for name in
            ["lost+found", "-0", "a-", "a-x", "a-+1", "topic-0-delete", "remote-log-index-cache"]
        {
            assert_eq!(parsed(name), None, "{name}");
        }
    }
}
