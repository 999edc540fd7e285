//! Decompressing a body piece by piece, in buffers that serve one body after the other.
//!
//! Invariants: a body costs no allocation once the workspace has served one like it; what a workspace
//! keeps is bounded ([`MAX_KEPT_LEN`] and a zstd window of the size that every reader must support),
//! whatever passed through it.

use super::{Compression, DecompressError, gzip, lz4, snappy, zstd};

/// The size of the pieces in which gzip and zstd hand out their output, in bytes: as large as stays
/// in the fast caches together with what is decompressed.
pub(super) const CHUNK_LEN: usize = 64 * 1024;
/// The largest output buffer that is kept for the next body, in bytes.
const MAX_KEPT_LEN: usize = 1024 * 1024;

/// The buffers and the decoders' memory, for one body after the other.
#[derive(Debug, Default)]
pub struct Workspace {
    pub(super) output: Vec<u8>,
    pub(super) inflater: gzip::Inflater,
    pub(super) zstd: zstd::Context,
}

impl Workspace {
    /// Lets go of what one unusual body needed.
    fn trim(&mut self) {
        if self.output.capacity() > MAX_KEPT_LEN {
            self.output = Vec::new();
        }
        self.zstd.trim();
    }
}

/// Makes room for `len` bytes of output. What is there stays there: clearing it costs time.
pub(super) fn room(output: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if output.len() < len {
        output.resize(len, 0);
    }
    &mut output[..len]
}

/// Decompresses a body piece by piece.
#[derive(Debug)]
pub struct Decompressor<'a> {
    stream: Stream<'a>,
    workspace: &'a mut Workspace,
    /// Where the current piece is.
    piece: Piece<'a>,
    remaining: usize,
    limit: usize,
}

/// Where a codec has put the next piece of its output.
#[derive(Debug, Clone, Copy)]
pub(super) enum Piece<'a> {
    /// In the body itself, which stores it uncompressed.
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
    /// Starts on `body`; more than `max_output` bytes in all will be an error.
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

    /// Moves on to the next piece. False: everything has been handed out.
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
