//! Sends answers: memory by `writev`, log files by `sendfile`, or through memory if the kernel cannot.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use klamm_log::disk::DiskFile;
use tokio::net::TcpStream;

use super::response::{Part, Response};
use super::sendfile;

/// The maximum number of buffers in one `writev`.
const MAX_SLICES: usize = 64;
/// File ranges below this are copied through memory: one `writev` is faster than a `writev` and a `sendfile`.
const SMALL_FILE_RANGE: usize = 8 * 1024;
/// The bytes of a file copied into memory at a time if the kernel cannot send it.
const COPIED_AT_A_TIME: usize = 256 * 1024;

/// The answers to send, in order.
#[derive(Debug, Default)]
pub(crate) struct WriteQueue {
    parts: VecDeque<Part>,
    len: usize,
}

impl WriteQueue {
    pub(crate) fn push(&mut self, response: Response) {
        self.len += response.parts.iter().map(Part::len).sum::<usize>();
        self.parts.extend(response.parts.into_iter().filter(|part| part.len() > 0));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The number of bytes still to be sent.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Sends as much as the socket accepts and returns the number of bytes.
    pub(crate) fn send(&mut self, stream: &TcpStream) -> io::Result<usize> {
        let before = self.len;
        while !self.parts.is_empty() {
            self.load_small_files()?;
            let sent = match self.parts.front() {
                Some(Part::File { .. }) => self.send_file(stream).transpose(),
                _ => Some(self.send_memory(stream)),
            };
            let Some(sent) = sent else {
                self.copy_front()?;
                continue;
            };
            match sent {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => self.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(before - self.len)
    }

    fn send_memory(&self, stream: &TcpStream) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut count = 0;
        for part in self.parts.iter().take(MAX_SLICES) {
            let Part::Memory(bytes) = part else { break };
            slices[count] = IoSlice::new(bytes);
            count += 1;
        }
        stream.try_write_vectored(&slices[..count])
    }

    /// Sends as much as the socket accepts of the file range at the front, by `sendfile`; `None` if the kernel cannot.
    fn send_file(&self, stream: &TcpStream) -> io::Result<Option<usize>> {
        let Some(Part::File { file, position, len }) = self.parts.front() else { return Ok(None) };
        match file.as_fd() {
            Some(fd) if sendfile::is_possible(fd) => sendfile::send(stream, fd, *position, *len),
            _ => Ok(None),
        }
    }

    /// Replaces the small file ranges at the front by their contents.
    fn load_small_files(&mut self) -> io::Result<()> {
        for part in self.parts.iter_mut().take(MAX_SLICES) {
            let Part::File { file, position, len } = part else { continue };
            if *len > SMALL_FILE_RANGE {
                break;
            }
            *part = Part::Memory(contents(file.as_ref(), *position, *len)?);
        }
        Ok(())
    }

    /// Copies the beginning of the file range at the front into memory.
    fn copy_front(&mut self) -> io::Result<()> {
        let Some(Part::File { file, position, len }) = self.parts.front_mut() else {
            return Ok(());
        };
        let copied = contents(file.as_ref(), *position, (*len).min(COPIED_AT_A_TIME))?;
        *position += copied.len() as u64;
        *len -= copied.len();
        if *len == 0 {
            self.parts.pop_front();
        }
        self.parts.push_front(Part::Memory(copied));
        Ok(())
    }

    fn advance(&mut self, mut sent: usize) {
        self.len -= sent;
        while sent > 0 {
            let front = self.parts.front_mut().expect("no more was sent than was queued");
            if sent >= front.len() {
                sent -= front.len();
                self.parts.pop_front();
                continue;
            }
            match front {
                Part::Memory(bytes) => bytes.advance(sent),
                Part::File { position, len, .. } => {
                    *position += sent as u64;
                    *len -= sent;
                }
            }
            sent = 0;
        }
    }
}

fn contents(file: &dyn DiskFile, position: u64, len: usize) -> io::Result<Bytes> {
    let mut contents = vec![0; len];
    let read = file.read_at(&mut contents, position).map_err(|error| error.source)?;
    if read < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(contents.into())
}

#[cfg(test)]
mod tests;
