//! A shard while its partition is read from the log.

use bytes::Bytes;
use klamm_protocol::ids::{Offset, ProducerId};
use klamm_protocol::time::Now;

use super::active::ActiveShard;
use super::record::Replayed;
use super::shard::Shard;

/// Replays a partition from its log start to its end, and then becomes the running shard.
/// (Kafka: `CoordinatorLoaderImpl`)
#[derive(Debug)]
pub struct ShardLoader<S: Shard> {
    shard: S,
    records: u64,
    unknown_records: u64,
}

impl<S: Shard> ShardLoader<S> {
    /// A shard that has read nothing yet.
    #[must_use]
    pub fn new(config: S::Config) -> Self {
        Self { shard: S::new(config), records: 0, unknown_records: 0 }
    }

    /// Applies the record at `offset`. `producer_id` is set if its batch is part of a transaction:
    /// then it takes effect with [`Self::replay_end_transaction`]. Offsets come in ascending order.
    ///
    /// # Errors
    /// The record is damaged or newer than this program. The partition must not be served then.
    pub fn replay(
        &mut self,
        offset: Offset,
        producer_id: Option<ProducerId>,
        key: Bytes,
        value: Option<Bytes>,
    ) -> Result<(), S::ReplayError> {
        let replayed = self.shard.replay(offset, producer_id, key, value)?;
        self.records += 1;
        self.unknown_records += u64::from(matches!(replayed, Replayed::UnknownType { .. }));
        Ok(())
    }

    /// Applies the end of a transaction: an end-transaction control record of the log.
    pub fn replay_end_transaction(&mut self, producer_id: ProducerId, committed: bool) {
        self.records += 1;
        self.shard.replay_end_transaction(producer_id, committed);
    }

    /// How many records have been read.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// How many of them have types that no version of Kafka up to 4.3.1 writes.
    #[must_use]
    pub fn unknown_records(&self) -> u64 {
        self.unknown_records
    }

    /// The log is read up to `log_end`: the shard's timers start.
    #[must_use]
    pub fn into_active<W>(self, log_end: Offset, now: Now) -> ActiveShard<S, W> {
        ActiveShard::new(self.shard, log_end, now)
    }
}
