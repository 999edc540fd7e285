//! What a piece of work cost a broker: CPU and memory as the kernel accounts them, time and latency as the generator saw them.

use std::fmt;
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::figures::Figure;

/// Linux's USER_HZ, fixed for all that /proc shows.
const TICKS_PER_SECOND: f64 = 100.0;
/// utime and stime, counted from the field behind the program's name.
const UTIME_FIELD: usize = 11;
/// Makes the kernel forget the peak of the resident set (proc(5), clear_refs).
const RESET_PEAK: &str = "5";

/// What the generator did and saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct Work {
    /// Bytes of record batches, as they are on the wire.
    pub(crate) bytes: u64,
    pub(crate) records: u64,
    pub(crate) requests: u64,
    pub(crate) latencies: Vec<Duration>,
}

impl Work {
    pub(crate) fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.records += other.records;
        self.requests += other.requests;
        self.latencies.extend(other.latencies);
    }
}

/// A measurement under way.
#[derive(Debug)]
pub(crate) struct Meter {
    pid: u32,
    cpu_before: f64,
    started: Instant,
}

impl Meter {
    pub(crate) fn start(broker: &Broker) -> Self {
        let pid = broker.pid();
        std::fs::write(format!("/proc/{pid}/clear_refs"), RESET_PEAK).expect("the broker is ours");
        Self { pid, cpu_before: cpu_seconds(pid), started: Instant::now() }
    }

    pub(crate) fn stop(self, work: Work) -> Sample {
        let wall = self.started.elapsed();
        let cpu_seconds = cpu_seconds(self.pid) - self.cpu_before;
        let Work { bytes, records, requests, mut latencies } = work;
        assert!(bytes > 0 && !latencies.is_empty(), "nothing was done that could be measured");
        latencies.sort_unstable();
        Sample {
            bytes,
            records,
            requests,
            latencies,
            wall,
            cpu_seconds,
            peak_kib: peak_kib(self.pid),
        }
    }
}

/// One measurement.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) bytes: u64,
    pub(crate) records: u64,
    pub(crate) requests: u64,
    /// In ascending order, never empty.
    pub(crate) latencies: Vec<Duration>,
    pub(crate) wall: Duration,
    pub(crate) cpu_seconds: f64,
    /// The highest resident set, in KiB.
    pub(crate) peak_kib: u64,
}

impl Sample {
    pub(crate) fn latency(&self, per_mille: usize) -> Duration {
        self.latencies[(self.latencies.len() - 1) * per_mille / 1000]
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = Figure::ALL.map(|figure| format!("{} {:.4}", figure.unit(), figure.of(self)));
        f.write_str(&cells.join(", "))
    }
}

fn cpu_seconds(pid: u32) -> f64 {
    let stat = read(pid, "stat");
    // The name may hold anything, so the fields are counted from its closing parenthesis.
    let (_, fields) = stat.rsplit_once(") ").expect("the kernel names the program");
    let ticks = fields.split(' ').skip(UTIME_FIELD).take(2);
    let ticks: u32 = ticks.map(|field| field.parse::<u32>().expect("a count of ticks")).sum();
    f64::from(ticks) / TICKS_PER_SECOND
}

fn peak_kib(pid: u32) -> u64 {
    let status = read(pid, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let size = line.expect("a process has a resident set").trim().trim_end_matches(" kB");
    size.parse().expect("a size in KiB")
}

fn read(pid: u32, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("the broker runs")
}
