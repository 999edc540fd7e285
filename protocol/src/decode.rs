//! Reading wire primitives out of hostile bytes.
//!
//! A [`Decoder`] owns one frame and a budget: everything a decode keeps on the heap is charged
//! before it is allocated, so that no request can make the process allocate more than eight times
//! its own bytes plus 64 KiB. Strings and byte fields are slices of the frame, not copies.

use bytes::{Buf, Bytes};
use bytestring::ByteString;

use crate::Uuid;

/// Heap bytes that a decode may use for each byte of its input.
const BUDGET_PER_BYTE: usize = 8;
/// Heap bytes that a decode may use however small its input is. Below the promised 64 KiB, to leave
/// room for what the allocator and error values take.
const BUDGET_BASE: usize = 60 * 1024;
/// More tagged fields than this in one section are taken for an attack.
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
    /// A decoder over `buf`, with the budget that a request of this size has.
    pub fn new(buf: Bytes) -> Self {
        let limit = buf.len().saturating_mul(BUDGET_PER_BYTE).saturating_add(BUDGET_BASE);
        Self { buf, budget: limit, limit }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.buf.len()
    }

    /// The bytes not read yet, as they are.
    pub fn into_rest(self) -> Bytes {
        self.buf
    }

    /// Takes `bytes` off the budget, before they are allocated.
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
        let bytes = self.take(len)?;
        match ByteString::try_from(bytes.clone()) {
            Ok(string) => Ok(Some(string)),
            // Java's decoder replaces what is not UTF-8 instead of refusing it.
            Err(_) => {
                self.charge(len.saturating_mul(3))?;
                Ok(Some(String::from_utf8_lossy(&bytes).into_owned().into()))
            }
        }
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

    /// The tagged fields at the end of a flexible struct (KIP-482). `field` reads the value of a tag
    /// that it knows and says so; other tags are skipped.
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

    /// Skips a tagged-field section in which no tag is known.
    pub fn skip_tagged_fields(&mut self) -> Result<(), DecodeError> {
        self.tagged_fields(|_, _| Ok(false))
    }
}
