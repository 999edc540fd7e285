//! Rebuilds a batch: in the topic's codec, or with consecutive offsets. Only here produced records are encoded again.

use std::borrow::Cow;

use super::error::InvalidRecords;
use super::records::{RecordCheck, decompressed_limit};
use super::{Rules, Validated, check_size, final_timestamps, log_append_time};
use crate::batch::{
    BatchError, BatchHeader, CONTROL_FLAG, HEADER_LEN, LOG_APPEND_TIME_FLAG, RecordBatch,
    TRANSACTIONAL_FLAG, TimestampType,
};
use crate::batch_builder::{BuildError, finish};
use crate::compression::{Codec, Compression, DecompressError, Workspace, compress, decompress};
use crate::record::RecordRef;

/// Rebuilds the batch in `target`, with the record offsets 0, 1, 2 and so on.
pub(super) fn rebuild(
    batch: &RecordBatch,
    source: Compression,
    target: Codec,
    rules: &Rules<'_>,
    workspace: &mut Workspace,
) -> Result<Validated, InvalidRecords> {
    let mut records = uncompressed(batch, source, target, rules)?;
    let mut check = RecordCheck::new(batch.header, rules);
    check.walk(Compression::None, &records, workspace)?;
    let walked = check.finish()?;
    if !walked.consecutive {
        records = renumbered(&records)?.into();
    }
    let header = stamped(&batch.header, walked.max_timestamp, rules);
    let rebuilt = match target.compression() {
        Compression::None => finish(header, Compression::None, &records)?,
        codec => finish(header, codec, &compress(target, &records))?,
    };
    check_size(rebuilt.bytes.len(), rules)?;
    Ok(Validated {
        header: rebuilt.header,
        body: rebuilt.body(),
        log_append_time_ms: log_append_time(rules),
        rebuilt: true,
    })
}

fn uncompressed<'a>(
    batch: &'a RecordBatch,
    source: Compression,
    target: Codec,
    rules: &Rules<'_>,
) -> Result<Cow<'a, [u8]>, DecompressError> {
    let body = &batch.bytes[HEADER_LEN..];
    match source {
        Compression::None => Ok(body.into()),
        codec => Ok(decompress(codec, body, output_limit(body, target, rules))?.into()),
    }
}

/// If the target is uncompressed, the batch must not exceed `max.message.bytes`, so decompression can stop there.
fn output_limit(body: &[u8], target: Codec, rules: &Rules<'_>) -> usize {
    let limit = decompressed_limit(body, rules);
    match target.compression() {
        Compression::None => limit.min(rules.max_message_size.saturating_sub(HEADER_LEN)),
        _ => limit,
    }
}

fn renumbered(mut records: &[u8]) -> Result<Vec<u8>, InvalidRecords> {
    let mut out = Vec::with_capacity(records.len());
    let mut offset_delta = 0i32;
    while !records.is_empty() {
        let record = RecordRef::read(&mut records).map_err(BatchError::from)?;
        record.write_renumbered(&mut out, offset_delta).ok_or(BuildError::TooLarge)?;
        offset_delta = offset_delta.wrapping_add(1);
    }
    Ok(out)
}

/// The header for the same records; length, codec and checksum are set when it is finished.
fn stamped(header: &BatchHeader, max_timestamp: i64, rules: &Rules<'_>) -> BatchHeader {
    let (timestamp_type, max_timestamp) = final_timestamps(max_timestamp, rules);
    let flags = header.attributes & (TRANSACTIONAL_FLAG | CONTROL_FLAG);
    let attributes = match timestamp_type {
        TimestampType::CreateTime => flags,
        TimestampType::LogAppendTime => flags | LOG_APPEND_TIME_FLAG,
    };
    let last_offset_delta = header.record_count.saturating_sub(1);
    BatchHeader { attributes, max_timestamp, last_offset_delta, ..*header }
}
