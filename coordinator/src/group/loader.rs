//! A partition of `__consumer_offsets` while it is read from the log.

use klamm_protocol::time::Now;
use std::collections::BTreeMap;

use bytes::Bytes;
use bytestring::ByteString;
use klamm_protocol::ids::{Offset, ProducerId};

use super::classic::ClassicGroup;
use super::config::GroupConfig;
use super::draft::Draft;
use super::offset_expiry::Cleanup;
use super::record::{ReplayError, Replayed};
use super::shard::GroupShard;
use super::stored::Stored;
use super::timers::Timers;
use super::write::Writes;

/// Replays a partition from its log start to its end, and then becomes the running coordinator.
#[derive(Debug, Default)]
pub struct GroupLoader {
    stored: Stored,
}

impl GroupLoader {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies the record at `record_offset`. `producer_id` is its batch's; a transactional offset takes
    /// effect with [`Self::replay_txn_marker`]. Offsets have to come in ascending order.
    ///
    /// # Errors
    /// The record is damaged or newer than this program. The partition must not be served then:
    /// what it says could be a committed offset.
    pub fn replay(
        &mut self,
        record_offset: Offset,
        producer_id: ProducerId,
        key: Bytes,
        value: Option<Bytes>,
    ) -> Result<Replayed, ReplayError> {
        self.stored.replay(record_offset, producer_id, key, value)
    }

    /// Applies the end of a transaction: an end-transaction control record of the log.
    pub fn replay_txn_marker(&mut self, producer_id: ProducerId, commit: bool) {
        self.stored.offsets.replay_txn_marker(producer_id, commit);
    }

    /// The log is read up to `log_end`: the groups live, and every member's session starts anew.
    ///
    /// The driver then calls `on_committed` with the partition's committed end: until that has
    /// reached `log_end`, offsets are not shown.
    #[must_use]
    pub fn on_loaded(self, config: GroupConfig, log_end: Offset, now: Now) -> GroupShard {
        let groups = loaded_groups(&self.stored, now.wall_ms);
        let cleanup =
            Cleanup::starting_at(now.steady_ms, config.offsets_retention_check_interval_ms);
        let commit_deadline_ms = now.steady_ms.saturating_add(config.offset_commit_timeout_ms);
        let mut shard = GroupShard {
            config,
            stored: self.stored,
            groups,
            timers: Timers::default(),
            writes: Writes::after_loading(log_end, commit_deadline_ms),
            cleanup,
        };
        let group_ids: Vec<ByteString> = shard.groups.keys().cloned().collect();
        let mut draft = Draft::default();
        for group_id in group_ids {
            let turn = shard.turn(&group_id, &mut draft, now);
            let mut turn = turn.expect("the ids are those of the groups");
            for member_id in turn.group.member_ids() {
                turn.restart_session(&member_id);
            }
            // group.max.size may have been lowered: the last ones to join again are left out.
            if turn.group.member_count() > turn.config.max_size {
                turn.prepare_rebalance();
            }
        }
        assert!(
            draft.records.is_empty() && draft.replies.is_empty(),
            "nobody has asked for anything yet"
        );
        shard
    }
}

/// The stored groups, and a simple group for offsets that were committed without members.
fn loaded_groups(stored: &Stored, wall_ms: i64) -> BTreeMap<ByteString, ClassicGroup> {
    let from_metadata = stored.groups.iter().map(|(group_id, metadata)| {
        (group_id.clone(), ClassicGroup::from_stored(group_id, metadata))
    });
    let mut groups: BTreeMap<ByteString, ClassicGroup> = from_metadata.collect();
    for group_id in stored.offsets.group_ids() {
        if !groups.contains_key(group_id) && !stored.other_groups.contains_key(group_id) {
            groups.insert(group_id.clone(), ClassicGroup::new(group_id, wall_ms));
        }
    }
    groups
}
