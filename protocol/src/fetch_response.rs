//! Encodes a fetch response around record sets that are not in memory.
//!
//! The record sets of a response are ranges of log files that the kernel sends. This encodes the parts between them,
//! byte for byte as the generated `FetchResponse` does.

use bytes::{BufMut, Bytes, BytesMut};

use crate::EncodeError;
use crate::encode::{TaggedFields, put_array_len, put_null_bytes, put_string, put_unsigned_varint};
use crate::messages::fetch_response::{
    EpochEndOffset, FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint,
    PartitionData, SnapshotId,
};

const FIRST_FLEXIBLE: i16 = 12;

/// Appends the response to `head` and splits it at the positions of the record sets.
///
/// `record_lens` are the lengths of the partitions' record sets, in order, 0 for none. The returned chunks and the
/// non-empty record sets alternate: chunk, records, chunk, ..., chunk. The `records` of the partitions are ignored.
/// Versions 4 to 18.
pub fn lay_out(
    response: &FetchResponse,
    version: i16,
    mut head: BytesMut,
    record_lens: &[usize],
) -> Result<Vec<Bytes>, EncodeError> {
    let flexible = version >= FIRST_FLEXIBLE;
    let mut chunks = Vec::with_capacity(record_lens.len() + 1);
    let mut lens = record_lens.iter().copied();
    head.put_i32(response.throttle_time_ms);
    if version >= 7 {
        head.put_i16(response.error_code);
        head.put_i32(response.session_id);
    }
    put_array_len(&mut head, flexible, response.responses.len())?;
    for topic in &response.responses {
        put_topic(&mut head, version, topic)?;
        for partition in &topic.partitions {
            let len = lens.next().expect("a length for each partition");
            put_partition(&mut head, version, partition, len)?;
            if len > 0 {
                chunks.push(head.split().freeze());
            }
            if flexible {
                put_partition_tags(&mut head, partition)?;
            }
        }
        if flexible {
            put_unsigned_varint(&mut head, 0);
        }
    }
    if flexible {
        put_response_tags(&mut head, version, &response.node_endpoints)?;
    }
    chunks.push(head.freeze());
    Ok(chunks)
}

fn put_topic(
    out: &mut BytesMut,
    version: i16,
    topic: &FetchableTopicResponse,
) -> Result<(), EncodeError> {
    if version >= 13 {
        out.put_slice(topic.topic_id.as_bytes());
    } else {
        put_string(out, version >= FIRST_FLEXIBLE, &topic.topic)?;
    }
    put_array_len(out, version >= FIRST_FLEXIBLE, topic.partitions.len())
}

/// Encodes a partition up to its records, including their length.
fn put_partition(
    out: &mut BytesMut,
    version: i16,
    partition: &PartitionData,
    records_len: usize,
) -> Result<(), EncodeError> {
    let flexible = version >= FIRST_FLEXIBLE;
    out.put_i32(partition.partition_index);
    out.put_i16(partition.error_code);
    out.put_i64(partition.high_watermark);
    out.put_i64(partition.last_stable_offset);
    if version >= 5 {
        out.put_i64(partition.log_start_offset);
    }
    match &partition.aborted_transactions {
        None => put_null_bytes(out, flexible),
        Some(aborted) => {
            put_array_len(out, flexible, aborted.len())?;
            for transaction in aborted {
                out.put_i64(transaction.producer_id);
                out.put_i64(transaction.first_offset);
                if flexible {
                    put_unsigned_varint(out, 0);
                }
            }
        }
    }
    if version >= 11 {
        out.put_i32(partition.preferred_read_replica);
    }
    // A record set has the same length field as an array.
    put_array_len(out, flexible, records_len)
}

fn put_partition_tags(out: &mut BytesMut, partition: &PartitionData) -> Result<(), EncodeError> {
    let mut tags = TaggedFields::default();
    if partition.diverging_epoch != EpochEndOffset::default() {
        tags.put(0, |out| {
            out.put_i32(partition.diverging_epoch.epoch);
            out.put_i64(partition.diverging_epoch.end_offset);
            put_unsigned_varint(out, 0);
            Ok(())
        })?;
    }
    if partition.current_leader != LeaderIdAndEpoch::default() {
        tags.put(1, |out| {
            out.put_i32(partition.current_leader.leader_id);
            out.put_i32(partition.current_leader.leader_epoch);
            put_unsigned_varint(out, 0);
            Ok(())
        })?;
    }
    if partition.snapshot_id != SnapshotId::default() {
        tags.put(2, |out| {
            out.put_i64(partition.snapshot_id.end_offset);
            out.put_i32(partition.snapshot_id.epoch);
            put_unsigned_varint(out, 0);
            Ok(())
        })?;
    }
    tags.finish(out);
    Ok(())
}

fn put_response_tags(
    out: &mut BytesMut,
    version: i16,
    endpoints: &[NodeEndpoint],
) -> Result<(), EncodeError> {
    let mut tags = TaggedFields::default();
    if version >= 16 && !endpoints.is_empty() {
        tags.put(0, |out| {
            put_array_len(out, true, endpoints.len())?;
            for endpoint in endpoints {
                out.put_i32(endpoint.node_id);
                put_string(out, true, &endpoint.host)?;
                out.put_i32(endpoint.port);
                match &endpoint.rack {
                    None => put_unsigned_varint(out, 0),
                    Some(rack) => put_string(out, true, rack)?,
                }
                put_unsigned_varint(out, 0);
            }
            Ok(())
        })?;
    }
    tags.finish(out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;
    use crate::messages::fetch_response::AbortedTransaction;

    fn response(version: i16) -> FetchResponse {
        let full = PartitionData {
            partition_index: 3,
            high_watermark: 9,
            last_stable_offset: 8,
            log_start_offset: 1,
            aborted_transactions: Some(vec![AbortedTransaction {
                producer_id: 5,
                first_offset: 6,
            }]),
            records: Some(Bytes::from_static(b"records")),
            ..Default::default()
        };
        let mut failed = PartitionData {
            error_code: 6,
            aborted_transactions: None,
            records: Some(Bytes::new()),
            ..Default::default()
        };
        let mut node_endpoints = Vec::new();
        if version >= 12 {
            failed.current_leader = LeaderIdAndEpoch { leader_id: 1, leader_epoch: 2 };
            failed.diverging_epoch = EpochEndOffset { epoch: 1, end_offset: 4 };
            failed.snapshot_id = SnapshotId { end_offset: 7, epoch: 1 };
        }
        if version >= 16 {
            let endpoint =
                NodeEndpoint { node_id: 1, host: "h".into(), port: 9092, rack: Some("r".into()) };
            let plain = NodeEndpoint { node_id: 2, rack: None, ..endpoint.clone() };
            node_endpoints = vec![endpoint, plain];
        }
        let topic = FetchableTopicResponse {
            topic: if version < 13 { "topic".into() } else { Default::default() },
            partitions: vec![full.clone(), failed, full],
            ..Default::default()
        };
        FetchResponse {
            throttle_time_ms: 1,
            session_id: if version >= 7 { 77 } else { 0 },
            responses: vec![topic],
            node_endpoints,
            ..Default::default()
        }
    }

    #[test]
    fn the_layout_equals_the_generated_encoding_in_every_version() {
        for version in FetchResponse::VERSIONS {
            let response = response(version);
            let chunks = lay_out(&response, version, BytesMut::new(), &[7, 0, 7]).unwrap();
            assert_eq!(chunks.len(), 3);
            let laid_out = chunks.join(&b"records"[..]);
            assert_eq!(laid_out, response.encoded(version).unwrap(), "version {version}");
        }
    }
}
