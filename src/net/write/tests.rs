//! Files whose descriptor the kernel refuses to send from, among others.

use std::fs::File;
use std::io::{IoSlice, Read as _};
use std::net::{TcpListener, TcpStream as StdStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use klamm_log::disk::{DiskError, Operation};

use super::*;

/// A log file whose bytes are in memory as well. Its descriptor is that of a file with the same bytes for the first
/// `times` calls, and then one that `sendfile` refuses.
#[derive(Debug)]
struct Refused {
    bytes: Vec<u8>,
    sendable: Option<File>,
    times: AtomicUsize,
    refusing: Option<File>,
    reads: AtomicUsize,
}

impl Refused {
    fn new(bytes: Vec<u8>) -> Self {
        // The kernel refuses to send a directory with EINVAL. No log is on the device of this one.
        let refusing = Some(File::open("/proc/self").unwrap());
        let (times, reads) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { bytes, sendable: None, times, refusing, reads }
    }

    fn error(operation: Operation) -> DiskError {
        DiskError { operation, path: "refused".into(), source: io::ErrorKind::Unsupported.into() }
    }
}

impl DiskFile for Refused {
    fn write_all_at(&self, _: &mut [IoSlice<'_>], _: u64) -> Result<(), DiskError> {
        Err(Self::error(Operation::Write))
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> Result<usize, DiskError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let rest = &self.bytes[usize::try_from(position).unwrap().min(self.bytes.len())..];
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        Err(Self::error(Operation::Write))
    }

    fn set_size(&self, _: u64) -> Result<(), DiskError> {
        Err(Self::error(Operation::Write))
    }

    fn size(&self) -> Result<u64, DiskError> {
        Ok(self.bytes.len() as u64)
    }

    fn modified_ms(&self) -> Result<i64, DiskError> {
        Err(Self::error(Operation::Read))
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        let left = self.times.load(Ordering::Relaxed);
        if let Some(sendable) = self.sendable.as_ref().filter(|_| left > 0) {
            self.times.store(left - 1, Ordering::Relaxed);
            return Some(sendable.as_fd());
        }
        self.refusing.as_ref().map(AsFd::as_fd)
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| u8::try_from(index % 251).unwrap()).collect()
}

fn response(file: &Arc<Refused>, position: u64, len: usize) -> Response {
    let file: Arc<dyn DiskFile> = Arc::<Refused>::clone(file);
    let parts = vec![
        Part::Memory(Bytes::from_static(b"head")),
        Part::File { file, position, len },
        Part::Memory(Bytes::from_static(b"tail")),
    ];
    Response { parts }
}

/// Sends everything to a reader and returns the received bytes.
async fn sent(mut queue: WriteQueue) -> io::Result<Vec<u8>> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut reader = StdStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let stream = TcpStream::from_std(stream).unwrap();
    // The peer does not read yet: a long answer is sent in part.
    stream.writable().await?;
    queue.send(&stream)?;
    let received = tokio::task::spawn_blocking(move || {
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();
        received
    });
    while !queue.is_empty() {
        stream.writable().await?;
        queue.send(&stream)?;
    }
    drop(stream);
    Ok(received.await.unwrap())
}

fn expected(file: &Refused, from: usize, len: usize) -> Vec<u8> {
    [b"head", &file.bytes[from..from + len], b"tail"].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_refuses_to_send_is_copied() {
    let file = Arc::new(Refused::new(pattern(3_000_000)));
    for (position, len) in [(0, 3_000_000), (17, SMALL_FILE_RANGE + 1), (5, 1_000_000)] {
        let mut queue = WriteQueue::default();
        queue.push(response(&file, position, len));
        queue.push(response(&file, position, len));
        let from = usize::try_from(position).unwrap();
        let once = expected(&file, from, len);
        assert_eq!(queue.len(), 2 * once.len());
        assert!(sent(queue).await.unwrap() == [once.clone(), once].concat(), "{position} {len}");
    }
    assert!(!sendfile::is_possible(file.as_fd().unwrap()), "its file system is remembered");
    assert!(sendfile::is_possible(File::open(std::env::current_exe().unwrap()).unwrap().as_fd()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_in_the_middle_of_a_range_goes_on_where_the_kernel_has_stopped() {
    let bytes = pattern(8_000_000);
    let path = std::env::temp_dir().join(format!("klamm-write-{}", std::process::id()));
    std::fs::write(&path, &bytes).unwrap();
    let mut file = Refused::new(bytes);
    file.sendable = Some(File::open(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    *file.times.get_mut() = 1;
    let file = Arc::new(file);
    let mut queue = WriteQueue::default();
    queue.push(response(&file, 3, 7_999_990));
    assert!(sent(queue).await.unwrap() == expected(&file, 3, 7_999_990));
    let copied = file.reads.load(Ordering::Relaxed) * COPIED_AT_A_TIME;
    assert!(copied > 0 && copied < 7_999_990, "the kernel sent a part: {copied}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_a_descriptor_is_copied_piece_by_piece() {
    let mut file = Refused::new(pattern(1_000_000));
    file.refusing = None;
    let file = Arc::new(file);
    let mut queue = WriteQueue::default();
    queue.push(response(&file, 0, 1_000_000));
    assert!(sent(queue).await.unwrap() == expected(&file, 0, 1_000_000));
    assert_eq!(file.reads.load(Ordering::Relaxed), 1_000_000_usize.div_ceil(COPIED_AT_A_TIME));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_too_short_ends_the_connection() {
    let file = Arc::new(Refused::new(pattern(20_000)));
    let mut queue = WriteQueue::default();
    queue.push(response(&file, 0, 20_001));
    assert_eq!(sent(queue).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}
