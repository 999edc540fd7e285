//! The queue of log lines, which a thread of its own writes to standard output.
//!
//! A write to a full pipe whose reader does not read blocks for ever. So only this thread writes. Lines that come
//! meanwhile wait in the queue; when it is full they are dropped and counted, and their number is written as soon as
//! the pipe accepts bytes again.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// The maximum size of the queued lines. The thread may hold as much again.
const MAX_QUEUED_BYTES: usize = 8 * 1024 * 1024;

/// The queue, shared by all that log and the thread.
#[derive(Debug, Clone, Default)]
pub(super) struct LogQueue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    dropped: u64,
    /// The thread is writing lines.
    is_writing: bool,
}

impl LogQueue {
    /// Starts the thread, which runs until the process ends. `of_dropped` makes the line with the number of dropped
    /// lines.
    pub(super) fn start(
        &self,
        mut sink: impl Write + Send + 'static,
        of_dropped: impl Fn(u64) -> String + Send + 'static,
    ) -> io::Result<()> {
        let queue = self.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            loop {
                let (mut lines, dropped) = queue.take();
                if dropped > 0 {
                    lines.extend_from_slice(of_dropped(dropped).as_bytes());
                }
                // A closed standard output must not end the process, and the error cannot be reported anywhere.
                drop(sink.write_all(&lines).and_then(|()| sink.flush()));
            }
        })?;
        Ok(())
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.lines.len() + line.len() > MAX_QUEUED_BYTES {
            state.dropped += 1;
            return;
        }
        state.lines.extend_from_slice(line);
        self.0.changed.notify_all();
    }

    /// The lines taken before are written. Waits for the next ones.
    fn take(&self) -> (Vec<u8>, u64) {
        let mut state = self.lock();
        state.is_writing = false;
        self.0.changed.notify_all();
        let nothing = |state: &mut State| state.lines.is_empty() && state.dropped == 0;
        let woken = self.0.changed.wait_while(state, nothing);
        state = woken.unwrap_or_else(PoisonError::into_inner);
        state.is_writing = true;
        (std::mem::take(&mut state.lines), std::mem::take(&mut state.dropped))
    }

    /// Waits until all lines are written, at most `limit`.
    pub(super) fn finish(&self, limit: Duration) {
        let unwritten = |state: &mut State| state.is_writing || !state.lines.is_empty();
        let waited = self.0.changed.wait_timeout_while(self.lock(), limit, unwritten);
        // Lines that standard output does not accept in time are lost.
        drop(waited);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One event: a line.
#[derive(Debug)]
pub(super) struct QueuedLine<'a>(&'a LogQueue);

impl Write for QueuedLine<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = QueuedLine<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        QueuedLine(self)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, pipe};
    use std::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_queued_is_written_in_order_and_finish_waits_for_it() {
        let queue = LogQueue::default();
        let (reader, writer) = pipe().unwrap();
        queue.start(writer, |_| unreachable!("nothing is dropped")).unwrap();
        for number in 0..100 {
            queue.push(format!("{number}\n").as_bytes());
        }
        let started = Instant::now();
        queue.finish(LIMIT);
        assert!(started.elapsed() < LIMIT);
        assert!(queue.lock().lines.is_empty());
        let read: Vec<String> = BufReader::new(reader).lines().take(100).flatten().collect();
        assert_eq!(read, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn a_pipe_that_nobody_empties_keeps_nobody_waiting_and_the_lines_that_are_dropped_are_counted()
    {
        let queue = LogQueue::default();
        let (reader, writer) = pipe().unwrap();
        queue.start(writer, |dropped| format!("{dropped} dropped\n")).unwrap();
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        let lines = 3 * MAX_QUEUED_BYTES / line.len();
        (0..lines).for_each(|_| queue.push(&line));
        assert!(queue.lock().dropped > 0);
        queue.finish(Duration::from_millis(1));
        let mut written = 0;
        let mut dropped = 0;
        for read in BufReader::new(reader).lines() {
            let read = read.unwrap();
            match read.strip_suffix(" dropped") {
                Some(count) => dropped += count.parse::<usize>().unwrap(),
                None => written += 1,
            }
            if written + dropped == lines {
                return;
            }
        }
        panic!("{written} written and {dropped} dropped are not {lines}");
    }
}
