//! The rules of the produce path, one by one, and the errors of their violations.

use super::*;
use crate::batch::{MAGIC, NO_PRODUCER_ID, increment_sequence};
use crate::batch_builder::BatchBuilder;
use crate::compression::{DecompressError, compress};
use crate::error_code::ErrorCode;
use crate::record::Record;

const NOW: i64 = 1_700_000_000_000;
const HOUR: i64 = 3_600_000;
const CODECS: [Compression; 4] =
    [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn rules() -> Rules<'static> {
    Rules {
        topic: "t",
        partition: 3,
        max_message_size: 1_048_588,
        compacted: false,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: HOUR,
        now_ms: NOW,
        target: None,
        origin: AppendOrigin::Client { version: 9 },
        validate_compressed: false,
        max_decompressed_size: 1 << 24,
    }
}

fn validate(records: Bytes, rules: &Rules<'_>) -> Result<Validated, InvalidRecords> {
    super::validate(records, rules, &mut Workspace::default())
}

/// A batch of records `(timestamp, key)`, each with a value of its own.
fn batch_of(compression: Compression, records: &[(i64, Option<&str>)]) -> RecordBatch {
    let mut builder = BatchBuilder::new(0).compression(compression);
    for (index, (timestamp, key)) in records.iter().enumerate() {
        let value = format!("value {index}").repeat(20);
        builder.append(*timestamp, key.map(str::as_bytes), Some(value.as_bytes()), &[]).unwrap();
    }
    builder.build().unwrap()
}

fn two(compression: Compression) -> RecordBatch {
    batch_of(compression, &[(NOW - 5, Some("a")), (NOW - 9, Some("b"))])
}

/// `batch` with another header, in a valid checksum.
fn resealed(batch: &RecordBatch, patch: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let mut header = batch.header;
    patch(&mut header);
    let header = header.sealed(&batch.body());
    [&header.write_to()[..], &batch.body()].concat().into()
}

/// A batch with `body` behind the header of two records in `compression`.
fn with_body(compression: Compression, body: &[u8]) -> Bytes {
    crate::batch_builder::finish(two(Compression::None).header, compression, body).unwrap().bytes
}

fn stored(validated: &Validated) -> RecordBatch {
    let bytes = [&validated.header.write_to()[..], &validated.body].concat().into();
    let batch = RecordBatch::parse(&bytes).unwrap();
    assert_eq!(batch.bytes.len(), bytes.len());
    batch.check_crc().unwrap();
    batch
}

fn records_of(batch: &RecordBatch) -> Vec<Record> {
    batch.records(1 << 24).unwrap().map(Result::unwrap).collect()
}

fn refused(records: impl Into<Bytes>, rules: &Rules<'_>) -> (ErrorCode, bool) {
    let error = validate(records.into(), rules).unwrap_err();
    (error.code(), error.answers_log_start_offset())
}

#[test]
fn a_good_batch_is_accepted_without_copying_or_changing_its_records() {
    for compression in [Compression::None].into_iter().chain(CODECS) {
        let batch = two(compression);
        let validated = validate(batch.bytes.clone(), &rules()).unwrap();
        assert_eq!(validated.header, batch.header);
        assert_eq!(validated.body.as_ptr(), batch.bytes[HEADER_LEN..].as_ptr());
        assert_eq!((validated.log_append_time_ms, validated.rebuilt), (None, false));
    }
}

#[test]
fn nothing_at_all_and_a_batch_cut_short_are_invalid_before_the_log() {
    let batch = two(Compression::None).bytes;
    for len in [0, 11, 16, 60, batch.len() - 1] {
        let answer = refused(batch.slice(..len), &rules());
        assert_eq!(answer, (ErrorCode::InvalidRecord, false), "{len}");
    }
}

#[test]
fn two_batches_are_invalid_before_the_log() {
    let batch = two(Compression::None).bytes;
    let answer = refused([&batch[..], &batch].concat(), &rules());
    assert_eq!(answer, (ErrorCode::InvalidRecord, false));
}

#[test]
fn stray_bytes_after_a_batch_are_dropped() {
    let batch = two(Compression::None);
    for tail in [&[0u8, 1, 2, 3][..], &batch.bytes[..40]] {
        let records: Bytes = [&batch.bytes[..], tail].concat().into();
        let validated = validate(records, &rules()).unwrap();
        assert_eq!(stored(&validated).bytes, batch.bytes);
    }
}

#[test]
fn stray_bytes_that_begin_like_an_impossible_batch_are_corrupt() {
    let records = [&two(Compression::None).bytes[..], &[0; 12]].concat();
    assert_eq!(refused(records, &rules()), (ErrorCode::CorruptMessage, false));
}

#[test]
fn damage_of_the_frame_is_corrupt_and_old_formats_are_invalid() {
    let batch = two(Compression::None).bytes;
    let with = |position: usize, value: u8| {
        let mut bytes = batch.to_vec();
        bytes[position] = value;
        refused(bytes, &rules())
    };
    assert_eq!(with(20, batch[20] ^ 1), (ErrorCode::CorruptMessage, false));
    assert_eq!(with(batch.len() - 1, 9), (ErrorCode::CorruptMessage, false));
    for magic in [3, 0xff] {
        assert_eq!(with(16, magic), (ErrorCode::CorruptMessage, false));
    }
    for magic in 0..MAGIC.unsigned_abs() {
        assert_eq!(with(16, magic), (ErrorCode::InvalidRecord, false));
    }
    assert_eq!(with(8, 0xff), (ErrorCode::CorruptMessage, false));
}

#[test]
fn the_answer_has_a_text_where_kafkas_has_one() {
    let batch = two(Compression::None).bytes;
    let message = |position: usize, value: u8| {
        let mut bytes = batch.to_vec();
        bytes[position] = value;
        validate(bytes.into(), &rules()).unwrap_err().client_message()
    };
    assert_eq!(message(16, 3).unwrap(), "Invalid magic found in record: 3");
    assert_eq!(
        message(8, 0xff).unwrap(),
        format!(
            "Record size {} is less than the minimum record overhead (14)",
            two(Compression::None).header.batch_length | -0x0100_0000
        )
    );
    assert_eq!(message(20, batch[20] ^ 1), None);
    assert_eq!(message(16, 1), None);
    let after = [&batch[..], &[0; 12]].concat();
    assert_eq!(validate(after.into(), &rules()).unwrap_err().client_message(), None);
}

#[test]
fn a_base_offset_other_than_zero_is_invalid_for_a_client_only() {
    let records = resealed(&two(Compression::None), |header| header.base_offset = 1);
    let answer = refused(records.clone(), &rules());
    assert_eq!(answer, (ErrorCode::InvalidRecord, true));
    let coordinator = Rules { origin: AppendOrigin::Coordinator, ..rules() };
    assert!(validate(records, &coordinator).is_ok());
}

#[test]
fn a_batch_may_be_as_large_as_max_message_bytes_and_no_larger() {
    let batch = two(Compression::None).bytes;
    let fitting = Rules { max_message_size: batch.len(), ..rules() };
    assert!(validate(batch.clone(), &fitting).is_ok());
    let tight = Rules { max_message_size: batch.len() - 1, ..rules() };
    assert_eq!(refused(batch, &tight), (ErrorCode::MessageTooLarge, false));
}

#[test]
fn offsets_and_counts_must_agree_with_each_other_and_with_the_records() {
    let patches: [fn(&mut BatchHeader); 6] = [
        |header| header.last_offset_delta = -1,
        |header| header.last_offset_delta = 5,
        |header| header.record_count = 0,
        |header| header.record_count = -1,
        |header| (header.record_count, header.last_offset_delta) = (1, 0),
        |header| (header.record_count, header.last_offset_delta) = (3, 2),
    ];
    for (index, patch) in patches.into_iter().enumerate() {
        let records = resealed(&two(Compression::None), patch);
        assert_eq!(refused(records, &rules()), (ErrorCode::InvalidRecord, true), "{index}");
    }
}

#[test]
fn a_count_that_the_compressed_body_cannot_hold_is_invalid() {
    for compression in CODECS {
        let records = resealed(&two(compression), |header| {
            (header.record_count, header.last_offset_delta) = (i32::MAX, i32::MAX - 1);
        });
        let answer = refused(records, &rules());
        assert_eq!(answer, (ErrorCode::InvalidRecord, true), "{compression}");
    }
}

#[test]
fn a_wrong_count_in_a_compressed_batch_is_invalid_when_its_records_are_walked() {
    let rules = Rules { validate_compressed: true, ..rules() };
    for compression in CODECS {
        for count in [1, 3] {
            let records = resealed(&two(compression), |header| {
                (header.record_count, header.last_offset_delta) = (count, count - 1);
            });
            let answer = refused(records, &rules);
            assert_eq!(answer, (ErrorCode::InvalidRecord, true), "{compression} {count}");
        }
    }
}

#[test]
fn control_batches_are_the_brokers_own() {
    let records = resealed(&two(Compression::None), |header| header.attributes |= 0x20);
    let answer = refused(records.clone(), &rules());
    assert_eq!(answer, (ErrorCode::InvalidRecord, true));
    let coordinator = Rules { origin: AppendOrigin::Coordinator, ..rules() };
    assert!(validate(records, &coordinator).is_ok());
}

#[test]
fn a_producer_id_needs_a_sequence_number() {
    let patch = |base_sequence| {
        resealed(&two(Compression::None), |header| {
            (header.producer_id, header.producer_epoch) = (5, 0);
            header.base_sequence = base_sequence;
        })
    };
    assert_eq!(refused(patch(-1), &rules()), (ErrorCode::InvalidRecord, true));
    let validated = validate(patch(i32::MAX), &rules()).unwrap();
    assert_eq!(validated.header.last_sequence(), increment_sequence(i32::MAX, 1));
    assert_ne!(validated.header.producer_id, NO_PRODUCER_ID);
}

#[test]
fn zstd_needs_produce_version_seven() {
    let batch = two(Compression::Zstd).bytes;
    let version = |version| Rules { origin: AppendOrigin::Client { version }, ..rules() };
    let answer = refused(batch.clone(), &version(6));
    assert_eq!(answer, (ErrorCode::UnsupportedCompressionType, false));
    assert!(validate(batch, &version(7)).is_ok());
}

#[test]
fn a_codec_without_a_name_is_an_unknown_error() {
    let records = resealed(&two(Compression::None), |header| header.attributes |= 5);
    assert_eq!(refused(records, &rules()), (ErrorCode::UnknownServerError, true));
}

#[test]
fn a_compressed_body_that_is_none_is_an_unknown_error_walked_or_not() {
    for compression in CODECS {
        for validate_compressed in [false, true] {
            let rules = Rules { validate_compressed, ..rules() };
            let answer = refused(with_body(compression, &[1, 2, 3, 4, 5]), &rules);
            assert_eq!(answer, (ErrorCode::UnknownServerError, true), "{compression}");
            if compression == Compression::Gzip && !validate_compressed {
                // gzip has no block lengths: only decompression finds its end.
                continue;
            }
            let cut = &two(compression).body()[..20];
            let answer = refused(with_body(compression, cut), &rules);
            assert_eq!(answer, (ErrorCode::UnknownServerError, true), "{compression} cut");
        }
    }
}

#[test]
fn malformed_records_are_invalid() {
    let body = two(Compression::None).body();
    for len in [0, 1, body.len() / 2, body.len() - 1] {
        let answer = refused(with_body(Compression::None, &body[..len]), &rules());
        assert_eq!(answer, (ErrorCode::InvalidRecord, true), "{len}");
        for compression in CODECS {
            let rules = Rules { validate_compressed: true, ..rules() };
            let cut = compress(compression, &body[..len]);
            let answer = refused(with_body(compression, &cut), &rules);
            assert_eq!(answer, (ErrorCode::InvalidRecord, true), "{compression} {len}");
        }
    }
}

#[test]
fn a_compacted_topic_wants_a_key_in_every_record() {
    let rules = Rules { compacted: true, ..rules() };
    for compression in [Compression::None].into_iter().chain(CODECS) {
        assert!(validate(two(compression).bytes, &rules).is_ok());
        let keyless = [(NOW, Some("a")), (NOW, None), (NOW, Some("")), (NOW, None)];
        let error = validate(batch_of(compression, &keyless).bytes, &rules).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidRecord);
        assert!(error.answers_log_start_offset());
        let text = "Compacted topic cannot accept message without key in topic partition t-3";
        let rejected = error.rejected_records().unwrap();
        let errors: Vec<_> = rejected.record_errors().collect();
        assert_eq!(errors, [(1, text.to_owned()), (3, text.to_owned())]);
        assert_eq!(
            error.to_string(),
            format!(
                "One or more records have been rejected due to 2 record errors in total, and \
                 only showing the first three errors at most: \
                 [RecordError(batchIndex=1, message='{text}'), \
                 RecordError(batchIndex=3, message='{text}')]"
            )
        );
    }
}

#[test]
fn a_timestamp_too_far_ahead_is_refused_in_every_codec() {
    for compression in [Compression::None].into_iter().chain(CODECS) {
        let limit = batch_of(compression, &[(NOW + HOUR, None)]);
        assert!(validate(limit.bytes, &rules()).is_ok());
        let ahead = batch_of(compression, &[(NOW, None), (NOW + HOUR + 1, None)]);
        let error = validate(ahead.bytes, &rules()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidTimestamp);
        let errors: Vec<_> = error.rejected_records().unwrap().record_errors().collect();
        let text = format!(
            "Timestamp {} of message with offset 1 is out of range. The timestamp should be \
             within [{}, {}]",
            NOW + HOUR + 1,
            NOW.wrapping_sub(i64::MAX),
            NOW + HOUR
        );
        assert_eq!(errors, [(1, text)]);
        assert_eq!(
            error.client_message().unwrap(),
            "One or more records have been rejected due to invalid timestamp"
        );
    }
}

#[test]
fn a_limited_age_is_enforced_on_every_record_even_in_compressed_batches() {
    let rules = Rules { timestamp_before_max_ms: HOUR, ..rules() };
    for compression in [Compression::None].into_iter().chain(CODECS) {
        let old = batch_of(compression, &[(NOW, None), (NOW - HOUR - 1, None)]);
        let answer = refused(old.bytes, &rules);
        assert_eq!(answer, (ErrorCode::InvalidTimestamp, true), "{compression}");
        let without = batch_of(compression, &[(-1, None)]);
        assert!(validate(without.bytes, &rules).is_ok(), "{compression}");
    }
}

#[test]
fn a_header_that_understates_its_records_timestamps_is_corrected() {
    let records = resealed(&two(Compression::None), |header| header.max_timestamp = 1);
    let validated = validate(records, &rules()).unwrap();
    assert_eq!(validated.header.max_timestamp, NOW - 5);
    assert_eq!(stored(&validated).header, validated.header);
}

#[test]
fn log_append_time_stamps_the_header_and_leaves_the_records() {
    let rules = Rules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
    for compression in [Compression::None].into_iter().chain(CODECS) {
        // Timestamps of the producer are not checked.
        let batch = batch_of(compression, &[(5, None), (NOW + 9 * HOUR, None)]);
        let validated = validate(batch.bytes.clone(), &rules).unwrap();
        assert_eq!((validated.log_append_time_ms, validated.rebuilt), (Some(NOW), false));
        assert_eq!(validated.body, batch.body());
        let stored = stored(&validated);
        assert_eq!(stored.header.timestamp_type(), TimestampType::LogAppendTime);
        assert!(records_of(&stored).iter().all(|record| record.timestamp == NOW));
    }
}

#[test]
fn a_producer_must_not_claim_log_append_time() {
    for compression in [Compression::None, Compression::Gzip] {
        let claims = resealed(&two(compression), |header| header.attributes |= 8);
        let log_append = Rules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
        let error = validate(claims.clone(), &log_append).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidTimestamp);
        let (index, text) = error.rejected_records().unwrap().record_errors().next().unwrap();
        assert_eq!(index, 0);
        assert_eq!(
            text,
            format!(
                "Invalid timestamp type in message DefaultRecord(offset=0, timestamp={}, \
                 key=1 bytes, value=140 bytes). Producer should not set timestamp type to \
                 LogAppendTime.",
                NOW - 5
            )
        );
        // On a CreateTime topic Kafka just clears the flag.
        let validated = validate(claims, &rules()).unwrap();
        assert_eq!(stored(&validated).header.timestamp_type(), TimestampType::CreateTime);
    }
}

#[test]
fn a_topics_own_codec_replaces_the_producers() {
    for source in [Compression::None].into_iter().chain(CODECS) {
        for target in [Compression::None].into_iter().chain(CODECS) {
            let rules = Rules { target: Some(target.into()), ..rules() };
            let batch = two(source);
            let validated = validate(batch.bytes.clone(), &rules).unwrap();
            assert_eq!(validated.rebuilt, source != target);
            let stored = stored(&validated);
            assert_eq!(stored.header.compression(), Ok(target));
            assert_eq!(records_of(&stored), records_of(&batch), "{source} to {target}");
            let kept = |header: &BatchHeader| (header.base_timestamp, header.max_timestamp);
            assert_eq!(kept(&stored.header), kept(&batch.header));
        }
    }
}

#[test]
fn another_codec_keeps_producer_transaction_and_append_time() {
    let batch = resealed(&two(Compression::None), |header| {
        header.attributes |= 0x10;
        (header.producer_id, header.producer_epoch, header.base_sequence) = (7, 2, 40);
    });
    let rules = Rules {
        target: Some(Compression::Zstd.into()),
        timestamp_type: TimestampType::LogAppendTime,
        ..rules()
    };
    let header = stored(&validate(batch, &rules).unwrap()).header;
    assert!(header.is_transactional());
    assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (7, 2, 40));
    assert_eq!(
        (header.timestamp_type(), header.max_timestamp),
        (TimestampType::LogAppendTime, NOW)
    );
}

#[test]
fn a_batch_that_outgrows_the_limit_in_the_topics_codec_is_too_large() {
    let mut builder = BatchBuilder::new(0).compression(Compression::Gzip);
    builder.append(NOW, None, Some(&[0; 5_000]), &[]).unwrap();
    let batch = builder.build().unwrap().bytes;
    let small = Rules { max_message_size: 1_000, ..rules() };
    assert!(validate(batch.clone(), &small).is_ok());
    let uncompressed = Rules { target: Some(Compression::None.into()), ..small };
    assert_eq!(refused(batch, &uncompressed), (ErrorCode::MessageTooLarge, false));
}

#[test]
fn a_batch_that_decompresses_beyond_the_limit_is_too_large_when_it_is_decompressed() {
    for compression in CODECS {
        let mut builder = BatchBuilder::new(0).compression(compression);
        builder.append(NOW, None, Some(&[0; 100_000]), &[]).unwrap();
        let batch = builder.build().unwrap().bytes;
        let limit = 50_000;
        let rules = Rules { validate_compressed: true, max_decompressed_size: limit, ..rules() };
        let too_large = DecompressError::OutputTooLarge { limit };
        assert_eq!(
            validate(batch, &rules),
            Err(InvalidRecords::Batch(BatchError::Decompress(too_large)))
        );
    }
}

#[test]
fn records_whose_offsets_are_not_consecutive_are_numbered_anew() {
    let mut records = Vec::new();
    for offset_delta in [0, 0, 700] {
        let data = crate::record::RecordData { key: Some(b"k"), ..Default::default() };
        data.write(&mut records, offset_delta, 0).unwrap();
    }
    for compression in [Compression::None].into_iter().chain(CODECS) {
        let mut header = two(Compression::None).header;
        (header.record_count, header.last_offset_delta) = (3, 2);
        header.max_timestamp = header.base_timestamp;
        let body = compress(compression, &records);
        let batch = crate::batch_builder::finish(header, compression, &body).unwrap();
        // Kafka renumbers compressed records only if it recompresses them.
        let target = (compression != Compression::None).then(|| Compression::None.into());
        let rules = Rules { validate_compressed: true, target, ..rules() };
        let validated = validate(batch.bytes, &rules).unwrap();
        assert!(validated.rebuilt);
        let records = records_of(&stored(&validated));
        let offsets: Vec<_> = records.iter().map(|record| record.offset).collect();
        assert_eq!(offsets, [0, 1, 2], "{compression}");
        assert!(records.iter().all(|record| record.timestamp == NOW - 5));
    }
}

#[test]
fn control_records_are_not_compressed_for_a_topic() {
    let end = crate::control_record::EndTransaction { committed: true, coordinator_epoch: 1 };
    let batch = crate::control_record::end_transaction_batch(5, 0, end, NOW).unwrap();
    let rules = Rules {
        target: Some(Compression::Gzip.into()),
        origin: AppendOrigin::Coordinator,
        ..rules()
    };
    let validated = validate(batch.bytes.clone(), &rules).unwrap();
    assert_eq!(validated, Validated::from(batch));
}

#[test]
fn an_answer_does_not_outgrow_its_request() {
    let records: Vec<_> = (0..5_000).map(|_| (NOW, None)).collect();
    let rules = Rules { compacted: true, ..rules() };
    let error = validate(batch_of(Compression::Zstd, &records).bytes, &rules).unwrap_err();
    assert_eq!(error.rejected_records().unwrap().record_errors().count(), 1_000);
    assert!(error.to_string().contains("due to 5000 record errors in total"));
}
