//! Kafka's variable-length integers: base 128, least significant group first; the signed ones zigzag.
//!
//! Invariants: there are no allocations; a varint that is longer than its type needs (5 bytes for 32 bits, 10 for 64)
//! or has bits beyond its type is an error. Padding within that length is accepted, because encoders that back-patch a
//! length write it and Kafka reads it (`ByteUtils`).

use bytes::BufMut;

/// Why a variable-length integer cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VarintError {
    /// The input ended before the last byte of the number.
    #[error("the input ends inside a varint")]
    Truncated,
    /// More bytes or bits than the type holds.
    #[error("varint is longer than its type")]
    TooLong,
}

/// Takes an unsigned 32-bit varint from the front of `input`.
pub fn read_unsigned_varint(input: &mut &[u8]) -> Result<u32, VarintError> {
    let mut bytes = input.iter();
    let value = decode_unsigned_varint(|| bytes.next().copied().ok_or(VarintError::Truncated))?;
    *input = bytes.as_slice();
    Ok(value)
}

/// Takes an unsigned 64-bit varint from the front of `input`.
pub fn read_unsigned_varlong(input: &mut &[u8]) -> Result<u64, VarintError> {
    let mut bytes = input.iter();
    let value = decode_unsigned_varlong(|| bytes.next().copied().ok_or(VarintError::Truncated))?;
    *input = bytes.as_slice();
    Ok(value)
}

/// Takes a zigzag 32-bit varint from the front of `input`.
#[inline]
pub fn read_varint(input: &mut &[u8]) -> Result<i32, VarintError> {
    match input {
        [first, rest @ ..] if *first < 0x80 => {
            let value = zigzag_i32(u32::from(*first));
            *input = rest;
            Ok(value)
        }
        _ => read_unsigned_varint(input).map(zigzag_i32),
    }
}

/// Takes a zigzag 64-bit varint from the front of `input`.
#[inline]
pub fn read_varlong(input: &mut &[u8]) -> Result<i64, VarintError> {
    match input {
        [first, rest @ ..] if *first < 0x80 => {
            let value = zigzag_i64(u64::from(*first));
            *input = rest;
            Ok(value)
        }
        _ => read_unsigned_varlong(input).map(zigzag_i64),
    }
}

/// Decodes a zigzag 32-bit varint byte by byte, for input in pieces.
pub(crate) fn varint_from<E: From<VarintError>>(
    next: impl FnMut() -> Result<u8, E>,
) -> Result<i32, E> {
    decode_unsigned_varint(next).map(zigzag_i32)
}

/// Decodes a zigzag 64-bit varint byte by byte, for input in pieces.
pub(crate) fn varlong_from<E: From<VarintError>>(
    next: impl FnMut() -> Result<u8, E>,
) -> Result<i64, E> {
    decode_unsigned_varlong(next).map(zigzag_i64)
}

fn decode_unsigned_varint<E: From<VarintError>>(
    mut next: impl FnMut() -> Result<u8, E>,
) -> Result<u32, E> {
    let mut value = 0u32;
    for shift in [0, 7, 14, 21, 28] {
        let byte = next()?;
        let bits = u32::from(byte & 0x7f);
        if shift == 28 && byte > 0x0f {
            return Err(VarintError::TooLong.into());
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(VarintError::TooLong.into())
}

fn decode_unsigned_varlong<E: From<VarintError>>(
    mut next: impl FnMut() -> Result<u8, E>,
) -> Result<u64, E> {
    let mut value = 0u64;
    for shift in [0, 7, 14, 21, 28, 35, 42, 49, 56, 63] {
        let byte = next()?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && byte > 0x01 {
            return Err(VarintError::TooLong.into());
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(VarintError::TooLong.into())
}

/// Appends an unsigned 32-bit varint.
pub fn write_unsigned_varint(out: &mut impl BufMut, value: u32) {
    write_unsigned_varlong(out, u64::from(value));
}

/// Appends an unsigned 64-bit varint.
pub fn write_unsigned_varlong(out: &mut impl BufMut, mut value: u64) {
    while value > 0x7f {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8((value & 0x7f) as u8);
}

/// Appends a zigzag 32-bit varint.
pub fn write_varint(out: &mut impl BufMut, value: i32) {
    write_unsigned_varint(out, unzigzag_i32(value));
}

/// Appends a zigzag 64-bit varint.
pub fn write_varlong(out: &mut impl BufMut, value: i64) {
    write_unsigned_varlong(out, unzigzag_i64(value));
}

/// The size of `value` as an unsigned 64-bit (or 32-bit) varint: 1 to 10 bytes.
pub const fn unsigned_varlong_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// The size of `value` as a zigzag 32-bit varint: 1 to 5 bytes.
pub const fn varint_len(value: i32) -> usize {
    unsigned_varlong_len(unzigzag_i32(value) as u64)
}

/// The size of `value` as a zigzag 64-bit varint: 1 to 10 bytes.
pub const fn varlong_len(value: i64) -> usize {
    unsigned_varlong_len(unzigzag_i64(value))
}

const fn zigzag_i32(raw: u32) -> i32 {
    (raw >> 1).cast_signed() ^ -(raw & 1).cast_signed()
}

const fn zigzag_i64(raw: u64) -> i64 {
    (raw >> 1).cast_signed() ^ -(raw & 1).cast_signed()
}

const fn unzigzag_i32(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)).cast_unsigned()
}

const fn unzigzag_i64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_varint_takes_the_bytes_that_kafka_writes() {
        let cases: [(i32, &[u8]); 7] = [
            (0, &[0x00]),
            (-1, &[0x01]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (i32::MAX, &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i32::MIN, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ];
        for (value, bytes) in cases {
            let mut out = Vec::new();
            write_varint(&mut out, value);
            assert_eq!(out, bytes, "{value}");
            assert_eq!(varint_len(value), bytes.len(), "{value}");
            let mut input = bytes;
            assert_eq!(read_varint(&mut input), Ok(value));
            assert!(input.is_empty());
        }
    }

    #[test]
    fn a_signed_varlong_survives_a_round_trip_at_every_width() {
        for shift in 0..64 {
            for value in [1i64 << shift, (1i64 << shift).wrapping_sub(1), -(1i64 << (shift / 2))] {
                let mut out = Vec::new();
                write_varlong(&mut out, value);
                assert_eq!(out.len(), varlong_len(value), "{value}");
                assert_eq!(read_varlong(&mut out.as_slice()), Ok(value));
            }
        }
    }

    #[test]
    fn unsigned_lengths_are_those_of_the_written_bytes() {
        for value in [0, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            write_unsigned_varlong(&mut out, value);
            assert_eq!(out.len(), unsigned_varlong_len(value));
            assert_eq!(read_unsigned_varlong(&mut out.as_slice()), Ok(value));
        }
    }

    #[test]
    fn a_varint_that_is_too_long_for_its_type_is_refused() {
        let six = [0x80, 0x80, 0x80, 0x80, 0x80, 0x00];
        assert_eq!(read_unsigned_varint(&mut &six[..]), Err(VarintError::TooLong));
        let overflow = [0xff, 0xff, 0xff, 0xff, 0x10];
        assert_eq!(read_varint(&mut &overflow[..]), Err(VarintError::TooLong));
        let eleven = [0x80; 11];
        assert_eq!(read_varlong(&mut &eleven[..]), Err(VarintError::TooLong));
        let wide = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(read_varlong(&mut &wide[..]), Err(VarintError::TooLong));
    }

    #[test]
    fn a_padded_varint_within_its_length_is_read_and_a_cut_one_is_not() {
        assert_eq!(read_varint(&mut &[0x82, 0x00][..]), Ok(1));
        assert_eq!(read_varint(&mut &[0x82][..]), Err(VarintError::Truncated));
        assert_eq!(read_varlong(&mut &[][..]), Err(VarintError::Truncated));
    }

    #[test]
    fn a_failed_read_leaves_the_input_where_it_was() {
        let bytes = [0x80u8, 0x80];
        let mut input = &bytes[..];
        assert_eq!(read_unsigned_varint(&mut input), Err(VarintError::Truncated));
        assert_eq!(input.len(), 2);
    }
}
