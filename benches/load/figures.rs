//! The figures that are computed from a measurement, and how several of them are summed up.

use std::fmt;

use crate::measurement::Sample;

const GIB: f64 = 1_073_741_824.0;
const MIB: f64 = 1_048_576.0;
const MILLION: f64 = 1e6;
const KIB_PER_MIB: f64 = 1024.0;
const P50: usize = 500;
const P99: usize = 990;

/// One figure. For all but [`Figure::Throughput`], less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    CpuPerGib,
    CpuPerMillionRecords,
    CpuPerRequest,
    Throughput,
    LatencyP50,
    LatencyP99,
    PeakMemory,
}

impl Figure {
    pub(crate) const ALL: [Self; 7] = [
        Self::CpuPerGib,
        Self::CpuPerMillionRecords,
        Self::CpuPerRequest,
        Self::Throughput,
        Self::LatencyP50,
        Self::LatencyP99,
        Self::PeakMemory,
    ];

    /// What it is called, with its unit.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::CpuPerGib => "CPU s/GiB",
            Self::CpuPerMillionRecords => "CPU s/M records",
            Self::CpuPerRequest => "CPU us/request",
            Self::Throughput => "MiB/s",
            Self::LatencyP50 => "p50 ms",
            Self::LatencyP99 => "p99 ms",
            Self::PeakMemory => "peak RSS MiB",
        }
    }

    pub(crate) fn of(self, sample: &Sample) -> f64 {
        match self {
            Self::CpuPerGib => sample.cpu_seconds / (real(sample.bytes) / GIB),
            Self::CpuPerMillionRecords => sample.cpu_seconds / (real(sample.records) / MILLION),
            Self::CpuPerRequest => sample.cpu_seconds / real(sample.requests) * MILLION,
            Self::Throughput => real(sample.bytes) / MIB / sample.wall.as_secs_f64(),
            Self::LatencyP50 => sample.latency(P50).as_secs_f64() * 1e3,
            Self::LatencyP99 => sample.latency(P99).as_secs_f64() * 1e3,
            Self::PeakMemory => real(sample.peak_kib) / KIB_PER_MIB,
        }
    }
}

fn real(count: u64) -> f64 {
    count as f64
}

/// Several measurements of one figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` of no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self { median, min, max })
    }
}

/// Three digits that count, and no more than three behind the point.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = match self.median {
            ..10.0 => 3,
            10.0..100.0 => 1,
            _ => 0,
        };
        let Self { median, min, max } = self;
        f.pad(&format!("{median:.digits$} ({min:.digits$}..{max:.digits$})"))
    }
}
