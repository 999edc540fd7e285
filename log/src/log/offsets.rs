//! Offset look-ups for ListOffsets (`UnifiedLog.fetchOffsetByTimestamp`).

use crate::error::ReadError;
use crate::log_reader::LogView;
use crate::segment::{BatchAt, BatchScan, Segment};
use klamm_protocol::batch::{NO_TIMESTAMP, TimestampType};
use klamm_protocol::ids::{LeaderEpoch, Offset, none_if_minus_one, none_if_negative};

/// A timestamp of a ListOffsets request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetTarget {
    /// -1: the log end. The caller decides who may see it.
    Latest,
    /// -2: the log start.
    Earliest,
    /// -3: the first record with the largest timestamp.
    MaxTimestamp,
    /// -4: the first record on a local disk, which is the log start here.
    EarliestLocal,
    /// -5: the last record in remote storage; there is none.
    LatestTiered,
    /// -6: the first record not yet in remote storage; there is none.
    EarliestPendingUpload,
    /// The first record whose timestamp, in milliseconds, is this one or later.
    Timestamp(i64),
}

impl OffsetTarget {
    /// The target of a timestamp in a request.
    pub fn from_wire(timestamp: i64) -> Self {
        match timestamp {
            -1 => Self::Latest,
            -2 => Self::Earliest,
            -3 => Self::MaxTimestamp,
            -4 => Self::EarliestLocal,
            -5 => Self::LatestTiered,
            -6 => Self::EarliestPendingUpload,
            other => Self::Timestamp(other),
        }
    }
}

/// A found offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampedOffset {
    /// The record's timestamp in milliseconds; none for the ends of the log, and for a record without one.
    pub timestamp: Option<i64>,
    pub offset: Offset,
    pub leader_epoch: Option<LeaderEpoch>,
}

/// The maximum decompressed size of a stored batch whose timestamps are searched.
const MAX_DECOMPRESSED_BATCH: usize = 256 << 20;

impl LogView {
    /// Looks up an offset; `None` if no record qualifies.
    pub fn offset_for(&self, target: OffsetTarget) -> Result<Option<TimestampedOffset>, ReadError> {
        self.health.check()?;
        let end_of_log = |offset, leader_epoch| {
            Ok(Some(TimestampedOffset { timestamp: None, offset, leader_epoch }))
        };
        match target {
            OffsetTarget::Latest => {
                end_of_log(self.log_end, self.epochs.latest().map(|latest| latest.epoch))
            }
            OffsetTarget::Earliest | OffsetTarget::EarliestLocal => {
                end_of_log(self.log_start, self.epochs.epoch_of(self.log_start))
            }
            OffsetTarget::LatestTiered | OffsetTarget::EarliestPendingUpload => Ok(None),
            OffsetTarget::MaxTimestamp => self.health.observe(self.offset_of_max_timestamp()),
            OffsetTarget::Timestamp(timestamp) => {
                self.health.observe(self.first_at_or_after(timestamp))
            }
        }
    }

    fn first_at_or_after(&self, timestamp: i64) -> Result<Option<TimestampedOffset>, ReadError> {
        for (position, segment) in self.segments.iter().enumerate() {
            let largest = segment.largest_timestamp()?;
            // Without a largest timestamp, records may still have one from before 1970.
            if largest.map_or(NO_TIMESTAMP, |largest| largest.timestamp) < timestamp {
                continue;
            }
            let end = self.end_of(position);
            let qualifies = |batch: &BatchAt| batch.header.max_timestamp >= timestamp;
            let start = segment.find_by_timestamp(timestamp, self.log_start, end)?;
            let Some(start) = start else { continue };
            let file = segment.open_for_reading()?;
            for batch in BatchScan::new(file.as_ref(), start.position, end) {
                let batch = batch.map_err(|error| segment.scan_error(error))?;
                let found = if qualifies(&batch) {
                    first_record(segment, &batch, timestamp, self.log_start)?
                } else {
                    None
                };
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    fn offset_of_max_timestamp(&self) -> Result<Option<TimestampedOffset>, ReadError> {
        let mut largest = None;
        for segment in self.segments.iter() {
            let candidate = segment.largest_timestamp()?;
            let known = largest.map_or(-1, |(_, timestamp, _)| timestamp);
            if let Some(candidate) = candidate
                && candidate.timestamp > known
            {
                largest = Some((segment, candidate.timestamp, candidate.offset));
            }
        }
        let Some((segment, timestamp, offset)) = largest else {
            return self.first_without_timestamp();
        };
        let Some(batch) = segment.find(offset, segment.size())? else { return Ok(None) };
        if batch.header.timestamp_type() == TimestampType::LogAppendTime {
            return Ok(Some(found(&batch, timestamp, batch.header.base_offset)));
        }
        first_record(segment, &batch, timestamp, batch.header.base_offset)
    }

    /// If no record has a timestamp of 0 or more, the first one without a timestamp (-1) has the largest. As in Kafka
    /// only the first batch is searched; if all its records are from before 1970 there is none.
    fn first_without_timestamp(&self) -> Result<Option<TimestampedOffset>, ReadError> {
        let Some(segment) = self.segments.iter().next() else { return Ok(None) };
        let batch = segment.find(segment.base_offset(), segment.size())?;
        match batch {
            Some(batch) if batch.header.max_timestamp == NO_TIMESTAMP => {
                first_record(segment, &batch, NO_TIMESTAMP, batch.header.base_offset)
            }
            _ => Ok(None),
        }
    }
}

/// The first record of a batch at or after a timestamp and an offset.
fn first_record(
    segment: &Segment,
    batch: &BatchAt,
    timestamp: i64,
    start: Offset,
) -> Result<Option<TimestampedOffset>, ReadError> {
    let corrupt =
        || ReadError::Corrupt { segment: segment.base_offset(), position: batch.position };
    let whole = segment.read_batch(batch)?;
    for record in whole.records(MAX_DECOMPRESSED_BATCH).map_err(|_| corrupt())? {
        let record = record.map_err(|_| corrupt())?;
        if record.timestamp >= timestamp && record.offset >= start {
            return Ok(Some(found(batch, record.timestamp, record.offset)));
        }
    }
    Ok(None)
}

fn found(batch: &BatchAt, timestamp: i64, offset: Offset) -> TimestampedOffset {
    TimestampedOffset {
        timestamp: none_if_minus_one(timestamp),
        offset,
        leader_epoch: none_if_negative(batch.header.partition_leader_epoch),
    }
}
