//! Encodes wire primitives. The counterpart of [`crate::decode`].

use bytes::{BufMut, BytesMut};

/// Why a message cannot be encoded in a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("{message} has no version {version}")]
    UnsupportedVersion { message: &'static str, version: i16 },
    #[error("{message}.{field} has a value that version {version} cannot carry")]
    FieldNotInVersion { message: &'static str, field: &'static str, version: i16 },
    #[error("{message}.{field} is null, which version {version} does not allow")]
    NullNotAllowed { message: &'static str, field: &'static str, version: i16 },
    #[error("{0} bytes or elements are more than a length field can say")]
    TooLong(usize),
}

/// An unsigned LEB128 integer (`ByteUtils.writeUnsignedVarint`).
pub fn put_unsigned_varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(low_bits(value) | 0x80);
        value >>= 7;
    }
    out.put_u8(low_bits(value));
}

fn low_bits(value: u32) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}

fn put_length(
    out: &mut BytesMut,
    flexible: bool,
    wide: bool,
    len: usize,
) -> Result<(), EncodeError> {
    let too_long = |_| EncodeError::TooLong(len);
    match (flexible, wide) {
        (true, true) => {
            let len = i32::try_from(len).map_err(too_long)?;
            put_unsigned_varint(out, len.unsigned_abs() + 1);
        }
        // Kafka's limit for a string is the same as before varints.
        (true, false) => {
            let len = i16::try_from(len).map_err(too_long)?;
            put_unsigned_varint(out, u32::from(len.unsigned_abs()) + 1);
        }
        (false, true) => out.put_i32(i32::try_from(len).map_err(too_long)?),
        (false, false) => out.put_i16(i16::try_from(len).map_err(too_long)?),
    }
    Ok(())
}

fn put_null(out: &mut BytesMut, flexible: bool, wide: bool) {
    match (flexible, wide) {
        (true, _) => put_unsigned_varint(out, 0),
        (false, true) => out.put_i32(-1),
        (false, false) => out.put_i16(-1),
    }
}

pub fn put_string(out: &mut BytesMut, flexible: bool, value: &str) -> Result<(), EncodeError> {
    put_length(out, flexible, false, value.len())?;
    out.put_slice(value.as_bytes());
    Ok(())
}

pub fn put_null_string(out: &mut BytesMut, flexible: bool) {
    put_null(out, flexible, false);
}

pub fn put_bytes(out: &mut BytesMut, flexible: bool, value: &[u8]) -> Result<(), EncodeError> {
    put_length(out, flexible, true, value.len())?;
    out.put_slice(value);
    Ok(())
}

/// A null byte field, record set or array.
pub fn put_null_bytes(out: &mut BytesMut, flexible: bool) {
    put_null(out, flexible, true);
}

/// The length of an array that follows.
pub fn put_array_len(out: &mut BytesMut, flexible: bool, len: usize) -> Result<(), EncodeError> {
    put_length(out, flexible, true, len)
}

/// The tagged fields of a struct, collected in the order of their tags and then written.
#[derive(Debug, Default)]
pub struct TaggedFields {
    count: u32,
    bytes: BytesMut,
}

impl TaggedFields {
    /// Adds the field `tag`, whose value `write` encodes.
    pub fn put(
        &mut self,
        tag: u32,
        write: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let mut value = BytesMut::new();
        write(&mut value)?;
        self.count += 1;
        put_unsigned_varint(&mut self.bytes, tag);
        let len = u32::try_from(value.len()).map_err(|_| EncodeError::TooLong(value.len()))?;
        put_unsigned_varint(&mut self.bytes, len);
        self.bytes.put_slice(&value);
        Ok(())
    }

    /// Writes the section: the count, then the fields.
    pub fn finish(self, out: &mut BytesMut) {
        put_unsigned_varint(out, self.count);
        out.put_slice(&self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_of_more_than_32767_bytes_is_refused_in_both_encodings() {
        let longest = "x".repeat(0x7fff);
        let longer = "x".repeat(0x8000);
        for flexible in [false, true] {
            let mut out = BytesMut::new();
            assert_eq!(put_string(&mut out, flexible, &longest), Ok(()));
            let error = put_string(&mut out, flexible, &longer);
            assert_eq!(error, Err(EncodeError::TooLong(0x8000)));
            assert_eq!(put_bytes(&mut out, flexible, longer.as_bytes()), Ok(()));
        }
    }
}
