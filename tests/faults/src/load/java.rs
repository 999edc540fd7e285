//! The load of Apache Kafka's own producer: `Load.java` in a JVM of its own, and its lines on standard output.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use klamm_testbed::{compiled, jvm, until};

use super::{LoadSetup, MAX_UNACKNOWLEDGED};
use crate::history::RecordId;
use crate::recording::Recording;

const HEAP_MIB: u32 = 256;

/// A JVM that ends when its standard input does, that is with this process at the latest.
#[derive(Debug)]
pub(super) struct Driver {
    child: Child,
    input: Option<ChildStdin>,
    reader: Option<JoinHandle<()>>,
}

impl Driver {
    pub(super) fn start(
        bootstrap: &str,
        topic: &str,
        setup: LoadSetup,
        recording: &Arc<Recording>,
    ) -> Self {
        let classes = compiled(&Path::new(env!("CARGO_MANIFEST_DIR")).join("Load.java"));
        let mut java = jvm(&[&classes], HEAP_MIB);
        java.args(["Load", bootstrap, topic]).args([
            setup.partitions.to_string(),
            setup.records_per_second_and_partition.to_string(),
            MAX_UNACKNOWLEDGED.to_string(),
            setup.request_timeout.as_millis().to_string(),
        ]);
        java.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = java.spawn().expect("java starts");
        let lines = BufReader::new(child.stdout.take().expect("its standard output is a pipe"));
        let recording = Arc::clone(recording);
        let reader = std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                record(&recording, &line);
            }
        });
        Self { input: child.stdin.take(), child, reader: Some(reader) }
    }

    /// Sends no more and waits until every record is acknowledged or given up.
    pub(super) fn finish(&mut self, limit: Duration) {
        drop(self.input.take());
        until("the end of the load", limit, || self.child.try_wait().expect("it is our child"));
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the load's lines can be read");
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}

/// Writes down what one line tells.
fn record(recording: &Recording, line: &str) {
    let words: Vec<&str> = line.splitn(4, ' ').collect();
    let number = |at: usize| words.get(at)?.parse::<u64>().ok();
    let id = || {
        let partition = i32::try_from(number(1)?).ok()?;
        Some(RecordId { partition, number: number(2)? })
    };
    let Some(id) = id() else { panic!("the load does not print '{line}'") };
    match words[..] {
        ["S", ..] => assert_eq!(recording.next(id.partition), id, "records are numbered"),
        // A client that hears of a record only as a duplicate may be told -1.
        ["A", _, _, offset] => recording.acknowledge(id, offset.parse().ok().filter(|at| *at >= 0)),
        ["F", _, _, why] => recording.fail(id, why.to_owned()),
        _ => panic!("the load does not print '{line}'"),
    }
}
