//! Decompresses a body in pieces, with buffers that are reused for one body after the other.
//!
//! Invariants: a body needs no allocation if the workspace has processed a similar one; the memory that a workspace
//! keeps is bounded ([`MAX_KEPT_LEN`] and a zstd window of the size that every reader must support).

use super::{Compression, DecompressError, gzip, lz4, snappy, zstd};

/// The size of the output pieces of gzip and zstd, in bytes: small enough to stay in the CPU caches together with the
/// input.
pub(super) const CHUNK_LEN: usize = 64 * 1024;
/// The maximum size of the output buffer that is kept for the next body, in bytes.
const MAX_KEPT_LEN: usize = 1024 * 1024;

/// The buffers and decoders, reused for one body after the other.
#[derive(Debug, Default)]
pub struct Workspace {
    pub(super) output: Vec<u8>,
    pub(super) inflater: gzip::Inflater,
    pub(super) zstd: zstd::Context,
}

impl Workspace {
    /// Frees the memory that an unusually large body needed.
    fn trim(&mut self) {
        if self.output.capacity() > MAX_KEPT_LEN {
            self.output = Vec::new();
        }
        self.zstd.trim();
    }
}

/// Makes room for `len` bytes of output. Old contents are not cleared, which would cost time.
pub(super) fn room(output: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if output.len() < len {
        output.resize(len, 0);
    }
    &mut output[..len]
}

/// Decompresses a body in pieces.
#[derive(Debug)]
pub struct Decompressor<'a> {
    stream: Stream<'a>,
    workspace: &'a mut Workspace,
    /// The location of the current piece.
    piece: Piece<'a>,
    remaining: usize,
    limit: usize,
}

/// The location of the next piece of a codec's output.
#[derive(Debug, Clone, Copy)]
pub(super) enum Piece<'a> {
    /// In the body itself, stored uncompressed.
    Stored(&'a [u8]),
    /// So many bytes at the front of the workspace's output.
    Output(usize),
}

#[derive(Debug)]
enum Stream<'a> {
    None(Option<&'a [u8]>),
    Gzip(gzip::Stream<'a>),
    Snappy(snappy::Stream<'a>),
    Lz4(lz4::Stream<'a>),
    Zstd(zstd::Stream<'a>),
}

impl<'a> Decompressor<'a> {
    /// Starts with `body`; more than `max_output` bytes of output are an error.
    pub fn new(
        compression: Compression,
        body: &'a [u8],
        max_output: usize,
        workspace: &'a mut Workspace,
    ) -> Result<Self, DecompressError> {
        let stream = match compression {
            Compression::None => Stream::None(Some(body)),
            Compression::Gzip => Stream::Gzip(gzip::Stream::new(body, &mut workspace.inflater)?),
            Compression::Snappy => Stream::Snappy(snappy::Stream::new(body)?),
            Compression::Lz4 => Stream::Lz4(lz4::Stream::new(body)?),
            Compression::Zstd => {
                Stream::Zstd(zstd::Stream::new(body, max_output, &mut workspace.zstd)?)
            }
        };
        let piece = Piece::Output(0);
        Ok(Self { stream, workspace, piece, remaining: max_output, limit: max_output })
    }

    /// Advances to the next piece; returns false at the end.
    pub fn advance(&mut self) -> Result<bool, DecompressError> {
        let too_large = DecompressError::OutputTooLarge { limit: self.limit };
        let Workspace { output, inflater, zstd } = &mut *self.workspace;
        let piece = match &mut self.stream {
            Stream::None(body) => body.take().map(Piece::Stored),
            Stream::Gzip(stream) => stream.advance(inflater, room(output, CHUNK_LEN))?,
            Stream::Snappy(stream) => stream.advance(output, self.remaining, too_large)?,
            Stream::Lz4(stream) => stream.advance(output)?,
            Stream::Zstd(stream) => stream.advance(zstd, room(output, CHUNK_LEN))?,
        };
        let Some(piece) = piece else { return Ok(false) };
        self.piece = piece;
        self.remaining = self.remaining.checked_sub(self.chunk().len()).ok_or(too_large)?;
        Ok(true)
    }

    /// The current piece; meaningful after [`Self::advance`] returned true.
    pub fn chunk(&self) -> &[u8] {
        match self.piece {
            Piece::Stored(bytes) => bytes,
            Piece::Output(len) => &self.workspace.output[..len],
        }
    }
}

impl Drop for Decompressor<'_> {
    fn drop(&mut self) {
        self.workspace.trim();
    }
}
