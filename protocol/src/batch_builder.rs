//! Builds one record batch, byte for byte as Kafka's `MemoryRecordsBuilder` without compression.
//!
//! Invariants: offsets increase; the base timestamp is that of the first record (or the delete
//! horizon); a batch never exceeds 2 GiB.

use bytes::{BufMut, BytesMut};

use crate::batch::{
    BatchHeader, CONTROL_FLAG, DELETE_HORIZON_FLAG, HEADER_LEN, LOG_APPEND_TIME_FLAG, LOG_OVERHEAD,
    MAGIC, NO_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP,
    RecordBatch, TRANSACTIONAL_FLAG,
};
use crate::compression::{Codec, Compression, compress};
use crate::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};
use crate::record::{RecordData, RecordHeader};

/// Why a record or batch could not be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A batch's length field has 31 bits.
    #[error("a record batch cannot exceed 2 GiB")]
    TooLarge,
    /// A record's offset delta has 31 bits.
    #[error("offset {offset} is too far from the batch's base offset {base_offset}")]
    OffsetOutOfRange {
        /// The base offset.
        base_offset: Offset,
        /// The record's offset.
        offset: Offset,
    },
}

/// The builder of a batch.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    header: BatchHeader,
    codec: Codec,
    delete_horizon_ms: Option<i64>,
    log_append_time_ms: Option<i64>,
    next_offset: Offset,
    body: Vec<u8>,
}

impl BatchBuilder {
    /// An empty batch of uncompressed CreateTime records, without producer, epoch or flags.
    pub fn new(base_offset: Offset) -> Self {
        let header = BatchHeader {
            base_offset,
            batch_length: 0,
            partition_leader_epoch: NO_LEADER_EPOCH,
            magic: MAGIC,
            crc: 0,
            attributes: 0,
            last_offset_delta: -1,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            record_count: 0,
        };
        Self {
            header,
            codec: Compression::None.into(),
            delete_horizon_ms: None,
            log_append_time_ms: None,
            next_offset: base_offset,
            body: Vec::new(),
        }
    }

    /// Compresses the records when the batch is built.
    #[must_use]
    pub fn compression(mut self, codec: impl Into<Codec>) -> Self {
        self.codec = codec.into();
        self
    }

    /// Sets the leader epoch.
    #[must_use]
    pub fn leader_epoch(mut self, epoch: LeaderEpoch) -> Self {
        self.header.partition_leader_epoch = epoch;
        self
    }

    /// Sets the producer and the sequence number of the first record (-1 in control batches).
    #[must_use]
    pub fn producer(mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: i32) -> Self {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    /// Marks the batch as part of its producer's transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.header.attributes |= TRANSACTIONAL_FLAG;
        self
    }

    /// Marks the batch as one of control records.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.header.attributes |= CONTROL_FLAG;
        self
    }

    /// Sets the broker's time as the timestamp of the batch, in ms.
    #[must_use]
    pub fn log_append_time(mut self, now_ms: i64) -> Self {
        self.log_append_time_ms = Some(now_ms);
        self
    }

    /// Sets when the cleaner may drop the batch's tombstones, in ms (KIP-534).
    #[must_use]
    pub fn delete_horizon(mut self, horizon_ms: i64) -> Self {
        self.delete_horizon_ms = Some(horizon_ms);
        self.header.base_timestamp = horizon_ms;
        self
    }

    /// Appends a record and returns its offset.
    pub fn append(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader],
    ) -> Result<Offset, BuildError> {
        let offset = self.next_offset;
        self.append_at(offset, timestamp_ms, RecordData { key, value, headers })?;
        Ok(offset)
    }

    /// Appends a record at the given offset, as the cleaner does.
    ///
    /// # Panics If the offset does not increase.
    pub fn append_at(
        &mut self,
        offset: Offset,
        timestamp_ms: i64,
        record: RecordData<'_>,
    ) -> Result<(), BuildError> {
        assert!(offset >= self.next_offset, "offsets increase within a batch");
        let base_offset = self.header.base_offset;
        let delta = i32::try_from(offset - base_offset)
            .map_err(|_| BuildError::OffsetOutOfRange { base_offset, offset })?;
        let first = self.header.record_count == 0;
        if first && self.delete_horizon_ms.is_none() {
            self.header.base_timestamp = timestamp_ms;
        }
        let timestamp_delta = timestamp_ms.wrapping_sub(self.header.base_timestamp);
        let len = record.encoded_len(delta, timestamp_delta).ok_or(BuildError::TooLarge)?;
        batch_length(self.body.len() + len)?;
        record.write(&mut self.body, delta, timestamp_delta).ok_or(BuildError::TooLarge)?;
        self.header.record_count += 1;
        self.header.last_offset_delta = delta;
        self.header.max_timestamp = self.header.max_timestamp.max(timestamp_ms);
        self.next_offset = offset + 1;
        Ok(())
    }

    /// The size of the batch without compression.
    pub fn uncompressed_size(&self) -> usize {
        HEADER_LEN + self.body.len()
    }

    /// The number of appended records.
    pub fn record_count(&self) -> i32 {
        self.header.record_count
    }

    /// The offset that the next record gets.
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// The finished batch. A batch without records is valid, but Kafka only writes those of [`empty_batch`], and
    /// refuses them from producers.
    pub fn build(self) -> Result<RecordBatch, BuildError> {
        let mut header = self.header;
        if let Some(now_ms) = self.log_append_time_ms {
            header.attributes |= LOG_APPEND_TIME_FLAG;
            header.max_timestamp = now_ms;
        }
        if self.delete_horizon_ms.is_some() {
            header.attributes |= DELETE_HORIZON_FLAG;
        }
        match self.codec.compression() {
            Compression::None => finish(header, Compression::None, &self.body),
            codec => finish(header, codec, &compress(self.codec, &self.body)),
        }
    }
}

/// Adds a header to encoded and compressed records. Sets length, codec bits and checksum; the other fields of `header`
/// stay.
pub(crate) fn finish(
    mut header: BatchHeader,
    codec: Compression,
    body: &[u8],
) -> Result<RecordBatch, BuildError> {
    header.batch_length = batch_length(body.len())?;
    header.attributes &= !crate::batch::COMPRESSION_MASK;
    header.attributes |= i16::from(codec.id());
    let header = header.sealed(body);
    let mut bytes = BytesMut::with_capacity(HEADER_LEN + body.len());
    bytes.put_slice(&header.write_to());
    bytes.put_slice(body);
    Ok(RecordBatch { header, bytes: bytes.freeze() })
}

/// The batch that the cleaner keeps of one without remaining records, to preserve the producer's sequence number and
/// the last offset.
pub fn empty_batch(original: &BatchHeader) -> RecordBatch {
    let kept = TRANSACTIONAL_FLAG | CONTROL_FLAG | LOG_APPEND_TIME_FLAG;
    let header = BatchHeader {
        attributes: original.attributes & kept,
        base_timestamp: NO_TIMESTAMP,
        record_count: 0,
        ..*original
    };
    finish(header, Compression::None, &[]).expect("a header alone is not too large")
}

fn batch_length(body_len: usize) -> Result<i32, BuildError> {
    i32::try_from(HEADER_LEN - LOG_OVERHEAD + body_len).map_err(|_| BuildError::TooLarge)
}

/// Builds a batch of one record without a key, for tests and simple logs.
#[cfg(test)]
pub(crate) fn batch_of(value: &'static [u8]) -> RecordBatch {
    let mut builder = BatchBuilder::new(0);
    builder.append(1, None, Some(value), &[]).unwrap();
    builder.build().unwrap()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::batch::TimestampType;
    use crate::record::Record;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn records() -> Vec<Record> {
        let headers = vec![
            RecordHeader { key: bytes("h"), value: Some(bytes("1")) },
            RecordHeader { key: bytes("h"), value: None },
        ];
        vec![
            Record {
                offset: 7,
                timestamp: 1_000,
                key: Some(bytes("k")),
                value: Some(bytes("v")),
                headers,
            },
            Record { offset: 9, timestamp: 900, key: None, value: None, headers: vec![] },
        ]
    }

    fn build(builder: BatchBuilder) -> RecordBatch {
        let mut builder = builder;
        for record in records() {
            let data = RecordData {
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &record.headers,
            };
            builder.append_at(record.offset, record.timestamp, data).unwrap();
        }
        builder.build().unwrap()
    }

    fn read(batch: &RecordBatch) -> Vec<Record> {
        batch.records(1 << 20).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn records_come_back_as_they_were_appended_with_every_codec() {
        let codecs = [
            Compression::None,
            Compression::Gzip,
            Compression::Snappy,
            Compression::Lz4,
            Compression::Zstd,
        ];
        for codec in codecs {
            let batch = build(BatchBuilder::new(5).compression(codec));
            batch.check_crc().unwrap();
            assert_eq!(batch.header.compression(), Ok(codec));
            assert_eq!(read(&batch), records(), "{codec}");
            assert_eq!(RecordBatch::parse(&batch.bytes).unwrap(), batch);
        }
    }

    #[test]
    fn the_header_says_what_the_records_are() {
        let batch =
            build(BatchBuilder::new(5).producer(44, 3, 17).transactional().leader_epoch(12));
        let header = batch.header;
        assert_eq!((header.base_offset, header.last_offset(), header.next_offset()), (5, 9, 10));
        assert_eq!((header.base_timestamp, header.max_timestamp), (1_000, 1_000));
        assert_eq!((header.producer_id, header.producer_epoch), (44, 3));
        assert_eq!((header.base_sequence, header.last_sequence()), (17, 21));
        assert_eq!((header.record_count, header.partition_leader_epoch), (2, 12));
        assert!(header.is_transactional() && !header.is_control() && header.has_producer_id());
        assert_eq!(header.size(), batch.bytes.len());
    }

    #[test]
    fn log_append_time_is_every_records_timestamp() {
        let batch = build(BatchBuilder::new(7).log_append_time(5_555));
        assert_eq!(batch.header.timestamp_type(), TimestampType::LogAppendTime);
        assert!(read(&batch).iter().all(|record| record.timestamp == 5_555));
    }

    #[test]
    fn a_delete_horizon_takes_the_place_of_the_base_timestamp() {
        let batch = build(BatchBuilder::new(7).delete_horizon(10_000));
        assert_eq!(batch.header.delete_horizon_ms(), Some(10_000));
        assert_eq!(read(&batch), records());
    }

    #[test]
    fn an_empty_batch_keeps_offsets_and_producer() {
        let original = build(BatchBuilder::new(5).producer(44, 3, 17).transactional()).header;
        let empty = empty_batch(&original);
        empty.check_crc().unwrap();
        assert_eq!(empty.bytes.len(), HEADER_LEN);
        assert_eq!(empty.header.last_offset(), original.last_offset());
        assert_eq!(empty.header.last_sequence(), original.last_sequence());
        assert_eq!(empty.header.max_timestamp, original.max_timestamp);
        assert!(empty.header.is_transactional());
        assert_eq!(read(&empty), vec![]);
    }

    #[test]
    fn an_offset_too_far_from_the_base_is_an_error() {
        let mut builder = BatchBuilder::new(0);
        let offset = i64::from(i32::MAX) + 1;
        let out_of_range = BuildError::OffsetOutOfRange { base_offset: 0, offset };
        assert_eq!(builder.append_at(offset, 0, RecordData::default()), Err(out_of_range));
        assert_eq!(builder.record_count(), 0);
    }

    #[test]
    #[should_panic(expected = "offsets increase")]
    fn an_offset_that_does_not_increase_is_a_broken_invariant() {
        let mut builder = BatchBuilder::new(5);
        builder.append(0, None, None, &[]).unwrap();
        builder.append_at(5, 0, RecordData::default()).unwrap();
    }
}
