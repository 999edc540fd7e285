//! Scans the batch headers of a segment file without reading the records between them.

use crate::disk::{DiskError, DiskFile};
use klamm_protocol::batch::{BatchHeader, HEADER_LEN};

/// The size of one read: two index intervals, so that a look-up costs one read, rarely two.
const WINDOW: usize = 8 * 1024;

/// Why a scan stopped before the end.
#[derive(Debug)]
pub(crate) enum ScanError {
    Disk(DiskError),
    /// No complete batch begins at this byte.
    Corrupt {
        position: u64,
    },
}

impl From<DiskError> for ScanError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

/// A batch in a segment file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchAt {
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
}

impl BatchAt {
    pub(crate) fn size(&self) -> u64 {
        u64::try_from(self.header.size()).expect("usize fits in 64 bits")
    }

    /// The position of the next batch.
    pub(crate) fn end(&self) -> u64 {
        self.position + self.size()
    }
}

/// A scan from `position` to `end`. After an error it ends.
pub(crate) struct BatchScan<'a> {
    file: &'a dyn DiskFile,
    position: u64,
    end: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl<'a> BatchScan<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile, position: u64, end: u64) -> Self {
        Self { file, position, end, window: Vec::new(), window_start: 0 }
    }

    fn read_next(&mut self) -> Result<BatchAt, ScanError> {
        let position = self.position;
        let corrupt = ScanError::Corrupt { position };
        let Ok(header) = BatchHeader::parse(self.header_bytes()?) else { return Err(corrupt) };
        let batch = BatchAt { position, header };
        if batch.end() > self.end {
            return Err(corrupt);
        }
        self.position = batch.end();
        Ok(batch)
    }

    /// The bytes of the header at the current position, fewer at the end of the file.
    fn header_bytes(&mut self) -> Result<&[u8], DiskError> {
        let length = index(self.end - self.position).min(HEADER_LEN);
        let window_end = self.window_start + as_u64(self.window.len());
        let inside =
            self.window_start <= self.position && self.position + as_u64(length) <= window_end;
        if !inside {
            let wanted = index(self.end - self.position).min(WINDOW);
            self.window.resize(wanted, 0);
            let read = self.file.read_at(&mut self.window, self.position)?;
            self.window.truncate(read);
            self.window_start = self.position;
        }
        let from = index(self.position - self.window_start);
        let to = (from + length).min(self.window.len());
        Ok(&self.window[from..to])
    }
}

impl Iterator for BatchScan<'_> {
    type Item = Result<BatchAt, ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.end {
            return None;
        }
        let batch = self.read_next();
        if batch.is_err() {
            self.position = self.end;
        }
        Some(batch)
    }
}

/// A length that fits in memory: segment files are below 2 GiB.
pub(crate) fn index(length: u64) -> usize {
    usize::try_from(length).expect("64-bit address space")
}

pub(crate) fn as_u64(length: usize) -> u64 {
    u64::try_from(length).expect("usize fits in 64 bits")
}
