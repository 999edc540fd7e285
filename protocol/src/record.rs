//! One record inside a batch of format v2: decodes without copying, and encodes.
//!
//! Invariants: a decoded record fills exactly its stated length; every length inside it is checked against the
//! available bytes before an allocation; headers keep their order and their duplicates.

pub(crate) mod stream;

use bytes::{BufMut, Bytes};

use crate::ids::Offset;
use crate::varint::{self, VarintError, read_varint, read_varlong, varint_len, varlong_len};

/// The minimum size of a record: seven one-byte fields, including the length.
pub const MIN_RECORD_LEN: usize = 7;

/// A record with absolute offset and timestamp. Key, value and headers are slices of the batch (or of its decompressed
/// records), which they keep alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its position in the log.
    pub offset: Offset,
    /// Milliseconds since 1970, or -1. For LogAppendTime, the batch's maximum.
    pub timestamp: i64,
    /// The key, used for compaction and partitioning; `None` differs from empty.
    pub key: Option<Bytes>,
    /// The payload; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// In the producer's order, including duplicates.
    pub headers: Vec<RecordHeader>,
}

/// A header of a record (KIP-82).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordHeader {
    /// UTF-8 by convention; kept as received.
    pub key: Bytes,
    /// Any bytes, or none.
    pub value: Option<Bytes>,
}

/// Why the bytes of a record are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A number in the record cannot be decoded.
    #[error(transparent)]
    Varint(#[from] VarintError),
    /// The record, or a field of it, exceeds the available bytes.
    #[error("a record of {size} bytes reaches beyond the {available} that are left")]
    BeyondEnd {
        /// The stated size, which may be negative.
        size: i32,
        /// The remaining bytes.
        available: usize,
    },
    /// The fields do not fill the record's stated size.
    #[error("the fields of a record leave {left} bytes of its size unused")]
    SizeMismatch {
        /// Bytes between the last field and the record's end.
        left: usize,
    },
    /// More headers than the remaining bytes could hold, or a negative number.
    #[error("impossible number of record headers {count}")]
    HeaderCount {
        /// The stated count.
        count: i32,
    },
    /// A header without a key.
    #[error("negative header key size {size}")]
    NullHeaderKey {
        /// The stated size.
        size: i32,
    },
    /// The batch ends before its stated number of records.
    #[error("the batch ends before its last record")]
    Missing,
    /// Bytes follow the batch's last record.
    #[error("bytes remain after the batch's last record")]
    BytesRemain,
}

/// A record as stored in its batch: borrowed, with relative offset and timestamp, without allocations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Its size, including the length field.
    pub encoded_len: usize,
    /// Always 0 so far.
    pub attributes: i8,
    /// Milliseconds from the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Distance from the batch's base offset.
    pub offset_delta: i32,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    header_count: usize,
    headers: &'a [u8],
    /// The encoded key, value and headers.
    tail: &'a [u8],
}

impl<'a> RecordRef<'a> {
    /// Decodes the record at the front of `input` and checks its structure.
    pub fn read(input: &mut &'a [u8]) -> Result<Self, RecordError> {
        let start = input.len();
        let mut rest = *input;
        let size = read_varint(&mut rest)?;
        let available = rest.len();
        let beyond_end = RecordError::BeyondEnd { size, available };
        let size = usize::try_from(size).map_err(|_| beyond_end)?;
        let (mut body, after) = rest.split_at_checked(size).ok_or(beyond_end)?;
        let (attributes, fields) = body.split_first().ok_or(VarintError::Truncated)?;
        let attributes = attributes.cast_signed();
        body = fields;
        let timestamp_delta = read_varlong(&mut body)?;
        let offset_delta = read_varint(&mut body)?;
        let tail = body;
        let key = read_nullable(&mut body)?;
        let value = read_nullable(&mut body)?;
        let (header_count, headers) = read_headers(body)?;
        *input = after;
        let encoded_len = start - after.len();
        Ok(Self {
            encoded_len,
            attributes,
            timestamp_delta,
            offset_delta,
            key,
            value,
            header_count,
            headers,
            tail,
        })
    }

    /// Appends the record with another offset delta. None, without output, if it would exceed 2 GiB.
    pub(crate) fn write_renumbered(&self, out: &mut impl BufMut, offset_delta: i32) -> Option<()> {
        let numbers_len = varlong_len(self.timestamp_delta) + varint_len(offset_delta);
        let size = i32::try_from(1 + numbers_len + self.tail.len()).ok()?;
        varint::write_varint(out, size);
        out.put_i8(self.attributes);
        varint::write_varlong(out, self.timestamp_delta);
        varint::write_varint(out, offset_delta);
        out.put_slice(self.tail);
        Some(())
    }

    /// The headers in their order.
    pub fn headers(&self) -> HeaderRefs<'a> {
        HeaderRefs { rest: self.headers, left: self.header_count }
    }

    /// The record with absolute offset and timestamp; `source` are the bytes it was decoded from.
    pub fn to_record(&self, source: &Bytes, base_offset: Offset, timestamp: i64) -> Record {
        let slice = |bytes: &[u8]| source.slice_ref(bytes);
        Record {
            offset: base_offset.wrapping_add(i64::from(self.offset_delta)),
            timestamp,
            key: self.key.map(slice),
            value: self.value.map(slice),
            headers: self
                .headers()
                .map(|(key, value)| RecordHeader { key: slice(key), value: value.map(slice) })
                .collect(),
        }
    }
}

/// Headers of a record whose structure has been checked.
#[derive(Debug, Clone)]
pub struct HeaderRefs<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for HeaderRefs<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some(read_header(&mut self.rest).expect("the record's headers were checked on reading"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for HeaderRefs<'_> {}

fn read_nullable<'a>(input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, RecordError> {
    let size = read_varint(input)?;
    let Ok(len) = usize::try_from(size) else { return Ok(None) };
    let available = input.len();
    let (bytes, rest) =
        input.split_at_checked(len).ok_or(RecordError::BeyondEnd { size, available })?;
    *input = rest;
    Ok(Some(bytes))
}

fn read_header<'a>(input: &mut &'a [u8]) -> Result<(&'a [u8], Option<&'a [u8]>), RecordError> {
    let mut peek = *input;
    let size = read_varint(&mut peek)?;
    let key = read_nullable(input)?.ok_or(RecordError::NullHeaderKey { size })?;
    Ok((key, read_nullable(input)?))
}

/// Checks that `body` is exactly a header count and that many headers.
fn read_headers(mut body: &[u8]) -> Result<(usize, &[u8]), RecordError> {
    let count = read_varint(&mut body)?;
    // A header has at least two bytes, so this bounds the allocation for them.
    let header_count = usize::try_from(count)
        .ok()
        .filter(|header_count| *header_count <= body.len() / 2)
        .ok_or(RecordError::HeaderCount { count })?;
    let mut rest = body;
    for _ in 0..header_count {
        read_header(&mut rest)?;
    }
    if !rest.is_empty() {
        return Err(RecordError::SizeMismatch { left: rest.len() });
    }
    Ok((header_count, body))
}

/// The contents of a record to encode.
#[derive(Debug, Clone, Copy, Default)]
pub struct RecordData<'a> {
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    /// The headers in order.
    pub headers: &'a [RecordHeader],
}

impl RecordData<'_> {
    /// The size of the output of [`Self::write`]. None above 2 GiB, which is not allowed.
    pub fn encoded_len(&self, offset_delta: i32, timestamp_delta: i64) -> Option<usize> {
        let size = self.body_len(offset_delta, timestamp_delta)?;
        Some(varint_len(size) + usize::try_from(size).ok()?)
    }

    /// Appends the record. None, without output, if it would exceed 2 GiB.
    pub fn write(
        &self,
        out: &mut impl BufMut,
        offset_delta: i32,
        timestamp_delta: i64,
    ) -> Option<()> {
        let size = self.body_len(offset_delta, timestamp_delta)?;
        varint::write_varint(out, size);
        out.put_i8(0);
        varint::write_varlong(out, timestamp_delta);
        varint::write_varint(out, offset_delta);
        write_nullable(out, self.key);
        write_nullable(out, self.value);
        varint::write_varint(out, fitting(self.headers.len()));
        for header in self.headers {
            write_nullable(out, Some(&header.key));
            write_nullable(out, header.value.as_deref());
        }
        Some(())
    }

    fn body_len(&self, offset_delta: i32, timestamp_delta: i64) -> Option<i32> {
        let mut len = 1 + varlong_len(timestamp_delta) + varint_len(offset_delta);
        len += nullable_len(self.key)? + nullable_len(self.value)?;
        len += varint_len(i32::try_from(self.headers.len()).ok()?);
        for header in self.headers {
            len += nullable_len(Some(&header.key))? + nullable_len(header.value.as_deref())?;
        }
        i32::try_from(len).ok()
    }
}

fn nullable_len(bytes: Option<&[u8]>) -> Option<usize> {
    let Some(bytes) = bytes else { return Some(varint_len(-1)) };
    Some(varint_len(i32::try_from(bytes.len()).ok()?) + bytes.len())
}

fn write_nullable(out: &mut impl BufMut, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::write_varint(out, -1),
        Some(bytes) => {
            varint::write_varint(out, fitting(bytes.len()));
            out.put_slice(bytes);
        }
    }
}

fn fitting(len: usize) -> i32 {
    i32::try_from(len).expect("the record's whole length was checked")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(key: &'static str, value: Option<&'static str>) -> RecordHeader {
        RecordHeader {
            key: Bytes::from_static(key.as_bytes()),
            value: value.map(|value| Bytes::from_static(value.as_bytes())),
        }
    }

    fn written(data: RecordData<'_>) -> Bytes {
        let mut out = Vec::new();
        data.write(&mut out, 3, -5).unwrap();
        assert_eq!(data.encoded_len(3, -5), Some(out.len()));
        out.into()
    }

    #[test]
    fn a_record_with_duplicate_headers_is_read_as_it_was_written() {
        let headers = [header("a", Some("1")), header("a", None), header("", Some(""))];
        let bytes = written(RecordData { key: Some(b"k"), value: None, headers: &headers });
        let mut input = &bytes[..];
        let record = RecordRef::read(&mut input).unwrap();
        assert!(input.is_empty());
        assert_eq!((record.offset_delta, record.timestamp_delta), (3, -5));
        let record = record.to_record(&bytes, 100, 42);
        assert_eq!((record.offset, record.timestamp), (103, 42));
        assert_eq!(record.key.as_deref(), Some(&b"k"[..]));
        assert_eq!(record.value, None);
        assert_eq!(record.headers, headers);
    }

    #[test]
    fn an_empty_key_is_not_an_absent_one() {
        let bytes = written(RecordData { key: Some(b""), ..RecordData::default() });
        let record = RecordRef::read(&mut &bytes[..]).unwrap();
        assert_eq!((record.key, record.value), (Some(&[][..]), None));
        assert_eq!(bytes.len(), MIN_RECORD_LEN);
    }

    #[test]
    fn every_cut_of_a_record_is_an_error() {
        let headers = [header("key", Some("value"))];
        let bytes =
            written(RecordData { key: Some(b"k"), value: Some(b"value"), headers: &headers });
        for len in 0..bytes.len() {
            assert!(RecordRef::read(&mut &bytes[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn a_record_whose_fields_do_not_fill_it_is_an_error() {
        // Size 7, one more than its six one-byte fields need.
        let bytes = [14, 0, 0, 0, 1, 1, 0, 0];
        let left = RecordError::SizeMismatch { left: 1 };
        assert_eq!(RecordRef::read(&mut &bytes[..]), Err(left));
    }

    #[test]
    fn a_negative_record_size_is_an_error() {
        let bytes = [1, 0, 0, 0, 1, 1, 0];
        let beyond = RecordError::BeyondEnd { size: -1, available: 6 };
        assert_eq!(RecordRef::read(&mut &bytes[..]), Err(beyond));
    }

    #[test]
    fn a_header_count_beyond_the_bytes_is_an_error() {
        let mut bytes = vec![20, 0, 0, 0, 1, 1];
        varint::write_varint(&mut bytes, 1 << 30);
        bytes.resize(11, 0);
        let count = RecordError::HeaderCount { count: 1 << 30 };
        assert_eq!(RecordRef::read(&mut &bytes[..]), Err(count));
    }

    #[test]
    fn a_header_without_key_is_an_error() {
        // One header with key size -1.
        let bytes = [16, 0, 0, 0, 1, 1, 2, 1, 1];
        let null_key = RecordError::NullHeaderKey { size: -1 };
        assert_eq!(RecordRef::read(&mut &bytes[..]), Err(null_key));
    }
}
