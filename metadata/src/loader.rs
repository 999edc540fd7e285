//! Feeds an image from the metadata log, record by record, and keeps metadata transactions
//! (KIP-868) apart from what may be published.
//!
//! Invariant: [`MetadataLoader::stable`] never shows part of a transaction; an aborted transaction
//! leaves no trace in the image.

use std::collections::BTreeMap;

use klamm_protocol::ids::{BrokerId, Offset};
use klamm_protocol::metadata_record::MetadataRecord;

use crate::image::ClusterImage;
use crate::image::replay_error::ReplayError;

/// An image with its place in the log (Kafka's MetadataLoader and OffsetControlManager).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MetadataLoader {
    image: ClusterImage,
    end_offset: Offset,
    registration_offsets: BTreeMap<BrokerId, Offset>,
    transaction: Option<Transaction>,
}

/// An open transaction and the image to which aborting it goes back.
#[derive(Debug, Clone, PartialEq)]
struct Transaction {
    start_offset: Offset,
    image_before: ClusterImage,
}

impl MetadataLoader {
    /// Starts from a snapshot that holds everything below `end_offset`.
    ///
    /// Registrations count as written at the snapshot's end, as in Kafka: a broker that has
    /// reached it has surely seen itself.
    pub fn from_snapshot<'a>(
        records: impl IntoIterator<Item = &'a MetadataRecord>,
        end_offset: Offset,
    ) -> Result<Self, ReplayError> {
        let mut loader = Self::default();
        for record in records {
            loader.replay(record, end_offset - 1)?;
        }
        loader.end_offset = end_offset;
        Ok(loader)
    }

    /// Applies the record at `offset`.
    pub fn replay(&mut self, record: &MetadataRecord, offset: Offset) -> Result<(), ReplayError> {
        match record {
            MetadataRecord::BeginTransaction(_) => self.begin(offset)?,
            MetadataRecord::EndTransaction(_) => self.close(offset).map(drop)?,
            MetadataRecord::AbortTransaction(_) => self.image = self.close(offset)?.image_before,
            MetadataRecord::RegisterBroker(registration) => {
                self.image.replay(record)?;
                self.registration_offsets.insert(registration.broker_id, offset);
            }
            MetadataRecord::UnregisterBroker(registration) => {
                self.image.replay(record)?;
                self.registration_offsets.remove(&registration.broker_id);
            }
            _ => self.image.replay(record)?,
        }
        self.end_offset = offset + 1;
        Ok(())
    }

    /// Passes over log offsets that hold no metadata records (control batches).
    pub fn skip_to(&mut self, end_offset: Offset) {
        assert!(end_offset >= self.end_offset, "the metadata log is replayed forwards");
        self.end_offset = end_offset;
    }

    /// The image of everything replayed, open transaction included: what the controller decides on.
    pub fn newest(&self) -> &ClusterImage {
        &self.image
    }

    /// The image that may be published: without the open transaction.
    pub fn stable(&self) -> &ClusterImage {
        self.transaction.as_ref().map_or(&self.image, |open| &open.image_before)
    }

    /// The offset after the last record replayed.
    pub fn end_offset(&self) -> Offset {
        self.end_offset
    }

    /// Whether no metadata record was ever replayed. The log may begin with control batches.
    pub fn is_empty(&self) -> bool {
        self.image == ClusterImage::default()
    }

    /// Where the open transaction began.
    pub fn transaction_start_offset(&self) -> Option<Offset> {
        self.transaction.as_ref().map(|open| open.start_offset)
    }

    /// Where the broker's last registration is in the log.
    pub fn registration_offset(&self, broker: BrokerId) -> Option<Offset> {
        self.registration_offsets.get(&broker).copied()
    }

    fn begin(&mut self, offset: Offset) -> Result<(), ReplayError> {
        if let Some(open) = self.transaction_start_offset() {
            return Err(ReplayError::NestedTransaction { open, offset });
        }
        self.transaction =
            Some(Transaction { start_offset: offset, image_before: self.image.clone() });
        Ok(())
    }

    fn close(&mut self, offset: Offset) -> Result<Transaction, ReplayError> {
        self.transaction.take().ok_or(ReplayError::NoTransaction { offset })
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Uuid;
    use klamm_protocol::messages::abort_transaction_record::AbortTransactionRecord;
    use klamm_protocol::messages::begin_transaction_record::BeginTransactionRecord;
    use klamm_protocol::messages::end_transaction_record::EndTransactionRecord;
    use klamm_protocol::messages::register_broker_record::RegisterBrokerRecord;
    use klamm_protocol::messages::topic_record::TopicRecord;
    use klamm_protocol::messages::unregister_broker_record::UnregisterBrokerRecord;

    use super::*;

    fn topic(id: u8) -> MetadataRecord {
        let name = format!("t{id}").into();
        MetadataRecord::Topic(TopicRecord { name, topic_id: Uuid::from_bytes([id; 16]) })
    }

    fn begin() -> MetadataRecord {
        MetadataRecord::BeginTransaction(BeginTransactionRecord::default())
    }

    fn loaded(records: &[MetadataRecord]) -> Result<MetadataLoader, ReplayError> {
        let mut loader = MetadataLoader::default();
        for (offset, record) in (0..).zip(records) {
            loader.replay(record, offset)?;
        }
        Ok(loader)
    }

    #[test]
    fn a_transaction_is_published_when_it_ends() {
        let end = MetadataRecord::EndTransaction(EndTransactionRecord::default());
        let open = loaded(&[topic(1), begin(), topic(2)]).unwrap();
        assert_eq!((open.stable().topics.len(), open.newest().topics.len()), (1, 2));
        assert_eq!((open.transaction_start_offset(), open.end_offset()), (Some(1), 3));
        let closed = loaded(&[topic(1), begin(), topic(2), end]).unwrap();
        assert_eq!(closed.stable(), open.newest());
        assert_eq!(closed.transaction_start_offset(), None);
    }

    #[test]
    fn an_aborted_transaction_leaves_no_trace() {
        let abort = MetadataRecord::AbortTransaction(AbortTransactionRecord::default());
        let aborted = loaded(&[topic(1), begin(), topic(2), abort]).unwrap();
        assert_eq!(aborted.newest(), loaded(&[topic(1)]).unwrap().newest());
        assert_eq!(aborted.end_offset(), 4);
    }

    #[test]
    fn transactions_do_not_nest_and_end_only_once() {
        let end = MetadataRecord::EndTransaction(EndTransactionRecord::default());
        let nested = loaded(&[begin(), topic(1), begin()]);
        assert_eq!(nested, Err(ReplayError::NestedTransaction { open: 0, offset: 2 }));
        assert_eq!(loaded(&[end]), Err(ReplayError::NoTransaction { offset: 0 }));
    }

    #[test]
    fn the_offset_of_a_registration_is_known_while_it_lasts() {
        let register = MetadataRecord::RegisterBroker(RegisterBrokerRecord {
            broker_id: 7,
            broker_epoch: 1,
            ..Default::default()
        });
        let unregister = MetadataRecord::UnregisterBroker(UnregisterBrokerRecord {
            broker_id: 7,
            broker_epoch: 1,
        });
        let mut loader = loaded(&[topic(1), register.clone()]).unwrap();
        assert_eq!(loader.registration_offset(7), Some(1));
        loader.replay(&unregister, 2).unwrap();
        assert_eq!(loader.registration_offset(7), None);
        let snapshot = MetadataLoader::from_snapshot([&register], 50).unwrap();
        assert_eq!((snapshot.registration_offset(7), snapshot.end_offset()), (Some(49), 50));
    }

    #[test]
    fn control_batches_move_the_offset_only() {
        let mut loader = MetadataLoader::default();
        assert!(loader.is_empty());
        loader.skip_to(5);
        assert!(loader.is_empty());
        loader.replay(&topic(1), 5).unwrap();
        assert_eq!((loader.end_offset(), loader.is_empty()), (6, false));
    }
}
