//! Decodes wire primitives from untrusted bytes.
//!
//! A [`Decoder`] owns one frame and a budget: all heap memory of a decode is charged before it is allocated, so that no
//! request can make the process allocate more than eight times its own size plus 64 KiB. Strings and byte fields are
//! slices of the frame, not copies.

mod java_string;

use bytes::{Buf, Bytes};
use bytestring::ByteString;

use crate::Uuid;

/// The heap bytes that a decode may use per byte of its input.
const BUDGET_PER_BYTE: usize = 8;
/// The heap bytes that a decode may always use. Below the promised 64 KiB, to leave room for the allocator and error
/// values.
const BUDGET_BASE: usize = 60 * 1024;
/// The maximum length of a string, in any encoding, in Kafka's classes.
const MAX_STRING_LEN: usize = 0x7fff;
/// The maximum number of tagged fields in one section; more count as an attack.
const MAX_TAGGED_FIELDS: usize = 10_000;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("{wanted} bytes wanted where {left} are left")]
    Truncated { wanted: usize, left: usize },
    #[error("length {0} is negative where null is not allowed")]
    NegativeLength(i64),
    #[error("{count} elements of at least {min_size} bytes do not fit into the {left} bytes left")]
    ImpossibleCount { count: usize, min_size: usize, left: usize },
    #[error("a string of {0} bytes is longer than Kafka allows")]
    StringTooLong(usize),
    #[error("a variable-length integer is longer than its type allows")]
    VarintTooLong,
    #[error("decoding would allocate more than the {0} bytes that a request of this size may")]
    BudgetExceeded(usize),
    #[error("tagged field {tag} has {left} bytes after its value")]
    TaggedFieldTooLong { tag: u32, left: usize },
    #[error("{0} tagged fields in one section")]
    TooManyTaggedFields(usize),
    #[error("{name} has no version {version}")]
    UnsupportedVersion { name: &'static str, version: i16 },
    #[error("unknown metadata record type {0}: written by a newer or another program")]
    UnknownRecordType(u32),
    #[error("unknown metadata frame version {0}: written by a newer or another program")]
    UnknownFrameVersion(u32),
    #[error("{0} bytes after the end of the record")]
    TrailingBytes(usize),
}

/// A cursor over one frame that never reads past it and never allocates past its budget.
#[derive(Debug, Clone)]
pub struct Decoder {
    buf: Bytes,
    budget: usize,
    limit: usize,
}

impl Decoder {
    /// A decoder over `buf`, with the budget of a request of this size.
    pub fn new(buf: Bytes) -> Self {
        let limit = buf.len().saturating_mul(BUDGET_PER_BYTE).saturating_add(BUDGET_BASE);
        Self { buf, budget: limit, limit }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.buf.len()
    }

    /// The rest of the bytes.
    pub fn into_rest(self) -> Bytes {
        self.buf
    }

    /// Charges `bytes` to the budget, before they are allocated.
    fn charge(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.budget =
            self.budget.checked_sub(bytes).ok_or(DecodeError::BudgetExceeded(self.limit))?;
        Ok(())
    }

    fn need(&self, wanted: usize) -> Result<(), DecodeError> {
        let left = self.buf.len();
        if wanted > left { Err(DecodeError::Truncated { wanted, left }) } else { Ok(()) }
    }

    /// The next `len` bytes, as a slice of the frame.
    pub fn take(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        self.need(len)?;
        Ok(self.buf.split_to(len))
    }

    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.i8()? != 0)
    }

    pub fn i8(&mut self) -> Result<i8, DecodeError> {
        self.need(1)?;
        Ok(self.buf.get_i8())
    }

    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        self.need(2)?;
        Ok(self.buf.get_i16())
    }

    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.need(2)?;
        Ok(self.buf.get_u16())
    }

    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        self.need(4)?;
        Ok(self.buf.get_i32())
    }

    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.need(4)?;
        Ok(self.buf.get_u32())
    }

    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.need(8)?;
        Ok(self.buf.get_i64())
    }

    pub fn f64(&mut self) -> Result<f64, DecodeError> {
        self.need(8)?;
        Ok(self.buf.get_f64())
    }

    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        self.need(16)?;
        let mut bytes = [0; 16];
        self.buf.copy_to_slice(&mut bytes);
        Ok(Uuid::from_bytes(bytes))
    }

    /// An unsigned LEB128 integer of at most five bytes (`ByteUtils.readUnsignedVarint`).
    pub fn unsigned_varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            self.need(1)?;
            let byte = self.buf.get_u8();
            if shift == 28 && byte > 0x0f {
                return Err(DecodeError::VarintTooLong);
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::VarintTooLong)
    }

    /// The length of a string, byte field or array; `None` for null.
    fn length(&mut self, flexible: bool, wide: bool) -> Result<Option<usize>, DecodeError> {
        let length = match (flexible, wide) {
            (true, _) => i64::from(self.unsigned_varint()?) - 1,
            (false, true) => i64::from(self.i32()?),
            (false, false) => i64::from(self.i16()?),
        };
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(DecodeError::NegativeLength(length)),
        }
    }

    pub fn nullable_string(&mut self, flexible: bool) -> Result<Option<ByteString>, DecodeError> {
        let Some(len) = self.length(flexible, false)? else { return Ok(None) };
        if len > MAX_STRING_LEN {
            return Err(DecodeError::StringTooLong(len));
        }
        let bytes = self.take(len)?;
        if let Ok(string) = ByteString::try_from(bytes.clone()) {
            return Ok(Some(string));
        }
        self.charge(java_string::max_len(len))?;
        Ok(Some(java_string::decode(&bytes).into()))
    }

    pub fn string(&mut self, flexible: bool) -> Result<ByteString, DecodeError> {
        self.nullable_string(flexible)?.ok_or(DecodeError::NegativeLength(-1))
    }

    pub fn nullable_bytes(&mut self, flexible: bool) -> Result<Option<Bytes>, DecodeError> {
        match self.length(flexible, true)? {
            None => Ok(None),
            Some(len) => self.take(len).map(Some),
        }
    }

    pub fn bytes(&mut self, flexible: bool) -> Result<Bytes, DecodeError> {
        self.nullable_bytes(flexible)?.ok_or(DecodeError::NegativeLength(-1))
    }

    /// An array whose elements take at least `min_size` bytes each.
    pub fn nullable_array<T>(
        &mut self,
        flexible: bool,
        min_size: usize,
        mut element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = self.length(flexible, true)? else { return Ok(None) };
        let left = self.buf.len();
        if count.saturating_mul(min_size.max(1)) > left {
            return Err(DecodeError::ImpossibleCount { count, min_size, left });
        }
        self.charge(count.saturating_mul(size_of::<T>()))?;
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(Some(elements))
    }

    pub fn array<T>(
        &mut self,
        flexible: bool,
        min_size: usize,
        element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        self.nullable_array(flexible, min_size, element)?.ok_or(DecodeError::NegativeLength(-1))
    }

    /// A struct that may be null: a marker byte, then the struct (KIP-893).
    pub fn nullable_struct<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.i8()? < 0 { Ok(None) } else { read(self).map(Some) }
    }

    /// The same in a tagged field, where the marker is a varint: 0 for null.
    pub fn nullable_tagged_struct<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.unsigned_varint()? == 0 { Ok(None) } else { read(self).map(Some) }
    }

    /// The tagged fields at the end of a flexible struct (KIP-482). `field` decodes the value of a known tag and
    /// returns true; other tags are skipped.
    pub fn tagged_fields(
        &mut self,
        mut field: impl FnMut(&mut Self, u32) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        let count = self.unsigned_varint()? as usize;
        if count > MAX_TAGGED_FIELDS {
            return Err(DecodeError::TooManyTaggedFields(count));
        }
        for _ in 0..count {
            let tag = self.unsigned_varint()?;
            let size = self.unsigned_varint()? as usize;
            let mut value = Self { buf: self.take(size)?, budget: self.budget, limit: self.limit };
            let known = field(&mut value, tag)?;
            self.budget = value.budget;
            if known && value.remaining() > 0 {
                return Err(DecodeError::TaggedFieldTooLong { tag, left: value.remaining() });
            }
        }
        Ok(())
    }

    /// Skips a section of tagged fields.
    pub fn skip_tagged_fields(&mut self) -> Result<(), DecodeError> {
        self.tagged_fields(|_, _| Ok(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use crate::messages::consumer_group_member_metadata_value::{
        ClassicMemberMetadata, ConsumerGroupMemberMetadataValue,
    };
    use crate::messages::request_header::RequestHeader;

    fn decoder(bytes: &[u8]) -> Decoder {
        Decoder::new(Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn a_varint_has_at_most_five_bytes_and_thirty_two_bits() {
        let read = |bytes: &[u8]| decoder(bytes).unsigned_varint();
        assert_eq!(read(&[0x7f]), Ok(127));
        assert_eq!(read(&[0x80, 0x01]), Ok(128));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(u32::MAX));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x10]), Err(DecodeError::VarintTooLong));
        assert_eq!(read(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]), Err(DecodeError::VarintTooLong));
        assert_eq!(read(&[0x80]), Err(DecodeError::Truncated { wanted: 1, left: 0 }));
        // As in Java, a few more bytes than needed are not an error.
        assert_eq!(read(&[0x81, 0x80, 0x00]), Ok(1));
    }

    #[test]
    fn a_null_is_none_where_it_may_be_and_an_error_elsewhere() {
        let null = DecodeError::NegativeLength(-1);
        assert_eq!(decoder(&[0]).nullable_string(true), Ok(None));
        assert_eq!(decoder(&[0]).string(true), Err(null.clone()));
        assert_eq!(decoder(&[0xff, 0xff]).nullable_string(false), Ok(None));
        assert_eq!(decoder(&[0xff, 0xff]).string(false), Err(null.clone()));
        assert_eq!(decoder(&[0xff; 4]).nullable_bytes(false), Ok(None));
        assert_eq!(decoder(&[0]).bytes(true), Err(null.clone()));
        assert_eq!(decoder(&[0xff; 4]).nullable_array(false, 1, Decoder::i8), Ok(None));
        assert_eq!(decoder(&[0]).array(true, 1, Decoder::i8), Err(null));
        let below = DecodeError::NegativeLength(-2);
        assert_eq!(decoder(&[0xff, 0xfe]).nullable_string(false), Err(below));
    }

    #[test]
    fn a_null_struct_is_marked_by_less_than_zero_or_by_zero_in_a_tagged_field() {
        assert_eq!(decoder(&[0xff]).nullable_struct(Decoder::i8), Ok(None));
        assert_eq!(decoder(&[1, 7]).nullable_struct(Decoder::i8), Ok(Some(7)));
        assert_eq!(decoder(&[0, 7]).nullable_struct(Decoder::i8), Ok(Some(7)));
        assert_eq!(decoder(&[0]).nullable_tagged_struct(Decoder::i8), Ok(None));
        assert_eq!(decoder(&[1, 7]).nullable_tagged_struct(Decoder::i8), Ok(Some(7)));
    }

    #[test]
    fn a_tagged_struct_is_written_null_present_or_left_out_and_read_back() {
        let present = ClassicMemberMetadata { session_timeout_ms: 7, ..Default::default() };
        for (metadata, tagged) in [
            (None, &[1, 0, 1, 0][..]),
            (Some(present), &[1, 0, 7, 1, 0, 0, 0, 7, 1, 0]),
            (Some(ClassicMemberMetadata::default()), &[0]),
        ] {
            let value = ConsumerGroupMemberMetadataValue {
                classic_member_metadata: metadata,
                ..Default::default()
            };
            let bytes = value.encoded(0).unwrap();
            assert!(bytes.ends_with(tagged), "{bytes:x}");
            let read = ConsumerGroupMemberMetadataValue::decode(&mut Decoder::new(bytes), 0);
            assert_eq!(read, Ok(value));
        }
    }

    #[test]
    fn a_bool_is_true_unless_it_is_zero() {
        assert_eq!(
            [0, 1, 2, 0xff].map(|byte| decoder(&[byte]).bool().unwrap()),
            [false, true, true, true]
        );
    }

    #[test]
    fn a_string_has_at_most_32767_bytes_in_compact_encoding_too() {
        let of = |len: usize| {
            let mut out = bytes::BytesMut::new();
            crate::encode::put_unsigned_varint(&mut out, u32::try_from(len + 1).unwrap());
            out.resize(out.len() + len, b'x');
            Decoder::new(out.freeze()).string(true).map(|string| string.len())
        };
        assert_eq!(of(0x7fff), Ok(0x7fff));
        assert_eq!(of(0x8000), Err(DecodeError::StringTooLong(0x8000)));
    }

    #[test]
    fn an_array_that_cannot_be_there_is_refused_before_it_is_allocated() {
        let error = decoder(&[0, 0, 0, 3, 1, 2]).array(false, 1, Decoder::i8).unwrap_err();
        assert_eq!(error, DecodeError::ImpossibleCount { count: 3, min_size: 1, left: 2 });
        let error = decoder(&[0, 0, 0, 1, 1, 2]).array(false, 4, Decoder::i32).unwrap_err();
        assert_eq!(error, DecodeError::ImpossibleCount { count: 1, min_size: 4, left: 2 });
        let error = decoder(&[0xff, 0xff, 0xff, 0xff, 0x0f]).array(true, 0, Decoder::i8);
        assert!(matches!(error, Err(DecodeError::ImpossibleCount { .. })), "{error:?}");
    }

    #[test]
    fn elements_that_take_more_than_eight_times_their_bytes_come_to_the_end_of_the_budget() {
        let read = |count: u16| {
            let length = [&[0, 0][..], &count.to_be_bytes()].concat();
            let frame = [&length[..], &vec![0; usize::from(count)]].concat();
            decoder(&frame).array(false, 1, |d| d.i8().map(|_| [0_u64; 4])).map(|v| v.len())
        };
        assert_eq!(read(2_000), Ok(2_000));
        assert!(matches!(read(4_000), Err(DecodeError::BudgetExceeded(_))));
    }

    /// Tag 1 is an `i8`; all others are unknown.
    fn tag_1(bytes: &[u8]) -> Result<(Option<i8>, usize), DecodeError> {
        let mut decoder = decoder(bytes);
        let mut value = None;
        decoder.tagged_fields(|d, tag| {
            if tag == 1 {
                value = Some(d.i8()?);
            }
            Ok(tag == 1)
        })?;
        Ok((value, decoder.remaining()))
    }

    #[test]
    fn unknown_tags_are_skipped_whatever_is_in_them() {
        assert_eq!(tag_1(&[0]), Ok((None, 0)));
        assert_eq!(tag_1(&[2, 0, 3, 9, 9, 9, 1, 1, 5]), Ok((Some(5), 0)));
        assert_eq!(tag_1(&[1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 7]), Ok((None, 1)));
        let header = [&[0; 8][..], &[0, 1, b'c'], &[2, 5, 2, 1, 2, 0x80, 0x01, 0]].concat();
        let mut decoder = decoder(&header);
        let header = RequestHeader::decode(&mut decoder, 2).unwrap();
        assert_eq!((header.client_id.as_deref(), decoder.remaining()), (Some("c"), 0));
    }

    /// As in Kafka's classes, which do not require an order.
    #[test]
    fn the_last_of_two_fields_with_one_tag_counts() {
        assert_eq!(tag_1(&[2, 1, 1, 5, 1, 1, 6]), Ok((Some(6), 0)));
        assert_eq!(tag_1(&[2, 2, 0, 1, 1, 6]), Ok((Some(6), 0)));
    }

    #[test]
    fn a_tagged_field_that_does_not_fill_its_size_is_refused() {
        let longer = DecodeError::TaggedFieldTooLong { tag: 1, left: 1 };
        assert_eq!(tag_1(&[1, 1, 2, 5, 0]), Err(longer));
        assert_eq!(tag_1(&[1, 1, 0, 5]), Err(DecodeError::Truncated { wanted: 1, left: 0 }));
        assert_eq!(tag_1(&[1, 1, 9, 5]), Err(DecodeError::Truncated { wanted: 9, left: 1 }));
    }

    #[test]
    fn more_tagged_fields_than_anyone_sends_are_refused_before_they_are_read() {
        let mut frame = vec![0x91, 0x4e];
        frame.resize(30_000, 0);
        assert_eq!(tag_1(&frame), Err(DecodeError::TooManyTaggedFields(10_001)));
        frame[0] = 0x90;
        assert_eq!(tag_1(&frame), Ok((None, 30_000 - 2 - 20_000)));
    }

    #[test]
    fn what_a_tagged_field_takes_is_taken_off_the_budget_of_the_whole() {
        let field: &[u8] = &[0, 0, 4, 0];
        let frame =
            [&[2, 0, 0x84, 0x08][..], field, &[0; 1024], &[0, 0x84, 0x08], field, &[0; 1024]]
                .concat();
        let read = |element_is_large: bool| {
            decoder(&frame).tagged_fields(|d, _| {
                if element_is_large {
                    d.array(false, 1, |d| d.i8().map(|_| [0_u64; 6]))?;
                } else {
                    d.array(false, 1, Decoder::i8)?;
                }
                Ok(true)
            })
        };
        assert_eq!(read(false), Ok(()));
        assert!(matches!(read(true), Err(DecodeError::BudgetExceeded(_))));
    }
}
