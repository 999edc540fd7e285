//! Iterates over the records of a compressed batch while it is decompressed.
//!
//! Keys, values and headers are skipped, so that only one piece of the decompressor's output is in memory, even for
//! large records.

use super::{RecordError, RecordRef};
use crate::compression::{DecompressError, Decompressor};
use crate::varint::{VarintError, varint_from, varlong_from};

/// Why the records of a compressed batch cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StreamError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Decompress(#[from] DecompressError),
}

impl From<VarintError> for StreamError {
    fn from(error: VarintError) -> Self {
        Self::Record(error.into())
    }
}

/// The fields of a record that the checks need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordShape {
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i32,
    /// Negative: no key.
    pub(crate) key_size: i32,
    /// Negative: no value.
    pub(crate) value_size: i32,
}

impl From<RecordRef<'_>> for RecordShape {
    fn from(record: RecordRef<'_>) -> Self {
        Self {
            timestamp_delta: record.timestamp_delta,
            offset_delta: record.offset_delta,
            key_size: size_of(record.key),
            value_size: size_of(record.value),
        }
    }
}

fn size_of(bytes: Option<&[u8]>) -> i32 {
    bytes.map_or(-1, |bytes| {
        i32::try_from(bytes.len()).expect("a field of a record is shorter than 2 GiB")
    })
}

#[derive(Debug)]
pub(crate) struct RecordStream<'a> {
    source: Decompressor<'a>,
    /// The read position in the current piece.
    position: usize,
    /// The unread bytes of the current record.
    left: usize,
    started: bool,
}

impl<'a> RecordStream<'a> {
    pub(crate) fn new(source: Decompressor<'a>) -> Self {
        Self { source, position: 0, left: 0, started: false }
    }

    /// Decodes the next record; the end of the data is an error.
    pub(crate) fn next_record(&mut self) -> Result<RecordShape, StreamError> {
        if self.ensure_bytes()? == 0 {
            return Err(RecordError::Missing.into());
        }
        let mut rest = &self.source.chunk()[self.position..];
        if let Ok(record) = RecordRef::read(&mut rest) {
            self.position += record.encoded_len;
            return Ok(record.into());
        }
        self.next_in_pieces()
    }

    /// Decodes a record that spans pieces, or is malformed.
    fn next_in_pieces(&mut self) -> Result<RecordShape, StreamError> {
        let size = varint_from(|| self.next_raw_byte())?;
        self.left = usize::try_from(size)
            .map_err(|_| RecordError::BeyondEnd { size, available: self.available() })?;
        self.next_byte()?;
        let timestamp_delta = varlong_from(|| self.next_byte())?;
        let offset_delta = varint_from(|| self.next_byte())?;
        let key_size = self.skip_nullable()?;
        let value_size = self.skip_nullable()?;
        self.skip_headers()?;
        if self.left != 0 {
            return Err(RecordError::SizeMismatch { left: self.left }.into());
        }
        Ok(RecordShape { timestamp_delta, offset_delta, key_size, value_size })
    }

    /// Checks that all data was read.
    pub(crate) fn finish(mut self) -> Result<(), StreamError> {
        if self.ensure_bytes()? > 0 {
            return Err(RecordError::BytesRemain.into());
        }
        Ok(())
    }

    fn skip_headers(&mut self) -> Result<(), StreamError> {
        let count = varint_from(|| self.next_byte())?;
        let header_count = usize::try_from(count)
            .ok()
            .filter(|header_count| *header_count <= self.left / 2)
            .ok_or(RecordError::HeaderCount { count })?;
        for _ in 0..header_count {
            let size = self.skip_nullable()?;
            if size < 0 {
                return Err(RecordError::NullHeaderKey { size }.into());
            }
            self.skip_nullable()?;
        }
        Ok(())
    }

    fn skip_nullable(&mut self) -> Result<i32, StreamError> {
        let size = varint_from(|| self.next_byte())?;
        let Ok(mut len) = usize::try_from(size) else { return Ok(size) };
        let beyond_end = RecordError::BeyondEnd { size, available: self.left };
        self.left = self.left.checked_sub(len).ok_or(beyond_end)?;
        while len > 0 {
            let available = self.ensure_bytes()?;
            if available == 0 {
                return Err(beyond_end.into());
            }
            let step = len.min(available);
            self.position += step;
            len -= step;
        }
        Ok(size)
    }

    fn next_byte(&mut self) -> Result<u8, StreamError> {
        self.left = self.left.checked_sub(1).ok_or(VarintError::Truncated)?;
        self.next_raw_byte()
    }

    fn next_raw_byte(&mut self) -> Result<u8, StreamError> {
        if self.ensure_bytes()? == 0 {
            return Err(VarintError::Truncated.into());
        }
        let byte = self.source.chunk()[self.position];
        self.position += 1;
        Ok(byte)
    }

    fn available(&self) -> usize {
        if self.started { self.source.chunk().len() - self.position } else { 0 }
    }

    /// Ensures that a byte is available, if there is one; returns the number of available bytes.
    fn ensure_bytes(&mut self) -> Result<usize, DecompressError> {
        while self.available() == 0 {
            self.started = self.source.advance()?;
            self.position = 0;
            if !self.started {
                return Ok(0);
            }
        }
        Ok(self.available())
    }
}

#[cfg(test)]
mod tests {
    use super::super::RecordData;
    use super::*;
    use crate::compression::{Compression, Workspace, compress};

    const LIMIT: usize = 1 << 24;

    fn stream<'a>(body: &'a [u8], workspace: &'a mut Workspace) -> RecordStream<'a> {
        RecordStream::new(Decompressor::new(Compression::Gzip, body, LIMIT, workspace).unwrap())
    }

    #[test]
    fn records_larger_than_a_piece_are_walked() {
        let value = vec![b'v'; 100_000];
        let mut records = Vec::new();
        for offset_delta in 0..3 {
            let data = RecordData { key: None, value: Some(&value), headers: &[] };
            data.write(&mut records, offset_delta, 7).unwrap();
        }
        let body = compress(Compression::Gzip, &records);
        let mut workspace = Workspace::default();
        let mut stream = stream(&body, &mut workspace);
        for offset_delta in 0..3 {
            let expected =
                RecordShape { timestamp_delta: 7, offset_delta, key_size: -1, value_size: 100_000 };
            assert_eq!(stream.next_record(), Ok(expected));
        }
        assert_eq!(stream.finish(), Ok(()));
    }

    #[test]
    fn bytes_after_the_last_record_are_an_error() {
        let body = compress(Compression::Gzip, b"x");
        assert_eq!(
            stream(&body, &mut Workspace::default()).finish(),
            Err(RecordError::BytesRemain.into())
        );
    }

    #[test]
    fn a_missing_record_is_an_error() {
        let body = compress(Compression::Gzip, b"");
        assert_eq!(
            stream(&body, &mut Workspace::default()).next_record(),
            Err(RecordError::Missing.into())
        );
    }

    #[test]
    fn the_stream_refuses_what_the_slice_reader_refuses() {
        let cases: [&[u8]; 6] = [
            &[14, 0, 0, 0, 1, 1, 0, 0],
            &[1, 0, 0, 0, 1, 1, 0],
            &[16, 0, 0, 0, 1, 1, 2, 1, 1],
            &[14, 0, 0, 0, 1, 1, 4, 0],
            &[12, 0, 0, 0, 20, 1, 0],
            &[0],
        ];
        for case in cases {
            let body = compress(Compression::Gzip, case);
            assert!(RecordRef::read(&mut &case[..]).is_err(), "{case:?}");
            assert!(stream(&body, &mut Workspace::default()).next_record().is_err(), "{case:?}");
        }
    }
}
