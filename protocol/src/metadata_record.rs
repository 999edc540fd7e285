//! The framing of records in the metadata log: frame version, type, version, body
//! (`MetadataRecordSerde`).

use bytes::{Bytes, BytesMut};

use crate::decode::{DecodeError, Decoder};
use crate::encode::{EncodeError, put_unsigned_varint};
pub use crate::messages::MetadataRecord;

/// The one frame version that Kafka writes.
const FRAME_VERSION: u32 = 1;

impl MetadataRecord {
    /// The value of the log record for this metadata record in `version` of its schema.
    pub fn to_frame(&self, version: i16) -> Result<Bytes, EncodeError> {
        let mut out = BytesMut::new();
        put_unsigned_varint(&mut out, FRAME_VERSION);
        put_unsigned_varint(&mut out, u32::from(self.api_key().unsigned_abs()));
        put_unsigned_varint(&mut out, u32::from(version.unsigned_abs()));
        self.encode_body(&mut out, version)?;
        Ok(out.freeze())
    }

    /// Decodes the value of a log record. An unknown frame version, type or version is an error: skipping it would make
    /// this node's image differ from the others'.
    pub fn from_frame(frame: Bytes) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(frame);
        let frame_version = decoder.unsigned_varint()?;
        if frame_version != FRAME_VERSION {
            return Err(DecodeError::UnknownFrameVersion(frame_version));
        }
        let key = decoder.unsigned_varint()?;
        let version = decoder.unsigned_varint()?;
        let version = i16::try_from(version).map_err(|_| DecodeError::VarintTooLong)?;
        let record = Self::decode_body(key, &mut decoder, version)?;
        match decoder.remaining() {
            0 => Ok(record),
            left => Err(DecodeError::TrailingBytes(left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::topic_record::TopicRecord;

    #[test]
    fn a_frame_reads_back_and_a_changed_one_is_refused() {
        let record = MetadataRecord::from(TopicRecord { name: "a".into(), ..Default::default() });
        let frame = record.to_frame(0).unwrap();
        assert_eq!(&frame[..3], [1, 2, 0]);
        assert_eq!(MetadataRecord::from_frame(frame.clone()), Ok(record));
        let changed = |at: usize, to: u8| {
            let mut bytes = frame.to_vec();
            bytes[at] = to;
            MetadataRecord::from_frame(bytes.into())
        };
        assert_eq!(changed(0, 2), Err(DecodeError::UnknownFrameVersion(2)));
        assert_eq!(changed(1, 99), Err(DecodeError::UnknownRecordType(99)));
        assert!(changed(2, 9).is_err());
        let longer = [&frame[..], &[0]].concat();
        assert_eq!(MetadataRecord::from_frame(longer.into()), Err(DecodeError::TrailingBytes(1)));
    }
}
