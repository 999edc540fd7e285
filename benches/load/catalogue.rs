//! The workloads, and what Klamm is to reach in each as a ratio to Apache Kafka in the same run.

use klamm_protocol::compression::Compression;

use crate::broker::Setting;
use crate::figures::Figure;
use crate::workload::{CatchUpLoad, Load, ProduceLoad, TailLoad};

const KIB: usize = 1024;
const MIB: u64 = 1024 * 1024;

/// One workload.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) setting: Setting,
    pub(crate) load: Load,
    pub(crate) targets: &'static [Target],
}

/// A ratio Klamm/Kafka that is not to be exceeded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) figure: Figure,
    pub(crate) ratio: f64,
}

const BATCH: ProduceLoad = ProduceLoad {
    connections: 3,
    partitions: 6,
    value_len: KIB,
    batch_len: 256 * KIB,
    codec: Compression::None,
    batches_per_request: 1,
    window: 5,
    requests: 4096,
    fresh_topic: true,
};

const SMALL: ProduceLoad = ProduceLoad {
    connections: 16,
    partitions: 16,
    value_len: 100,
    batch_len: 16 * KIB,
    codec: Compression::None,
    batches_per_request: 1,
    window: 5,
    requests: 16_384,
    fresh_topic: true,
};

/// As [`BATCH`], before compression.
const fn compressed(codec: Compression) -> Load {
    Load::Produce(ProduceLoad { codec, requests: 8192, ..BATCH })
}

const MANY_PARTITIONS: ProduceLoad = ProduceLoad {
    connections: 4,
    partitions: 1000,
    value_len: KIB,
    batch_len: 4 * KIB,
    codec: Compression::None,
    batches_per_request: 20,
    window: 5,
    requests: 2000,
    fresh_topic: false,
};

const LONE: ProduceLoad = ProduceLoad {
    connections: 1,
    partitions: 1,
    value_len: KIB,
    batch_len: KIB,
    codec: Compression::None,
    batches_per_request: 1,
    window: 1,
    requests: 20_000,
    fresh_topic: false,
};

const CATCH_UP: CatchUpLoad =
    CatchUpLoad { partitions: 6, value_len: KIB, batch_len: 256 * KIB, batches: 256, rounds: 6 };

const TAIL: TailLoad = TailLoad {
    partitions: 6,
    value_len: KIB,
    batch_len: 16 * KIB,
    bytes_per_second: 100 * MIB,
    batches: 64_000,
};

/// In the order in which they run.
pub(crate) const CATALOGUE: &[Case] = &[
    Case {
        name: "produce-batch",
        what: "1 KiB records, 256 KiB batches, 6 partitions, acks=all",
        setting: Setting::PageCache,
        load: Load::Produce(BATCH),
        targets: &[Target { figure: Figure::CpuPerGib, ratio: 0.40 }],
    },
    Case {
        name: "produce-lz4",
        what: "as produce-batch, of JSON in lz4: every record is validated by both",
        setting: Setting::PageCache,
        load: compressed(Compression::Lz4),
        targets: &[Target { figure: Figure::CpuPerGib, ratio: 0.40 }],
    },
    Case {
        name: "produce-zstd",
        what: "as produce-batch, of JSON in zstd: every record is validated by both",
        setting: Setting::PageCache,
        load: compressed(Compression::Zstd),
        targets: &[Target { figure: Figure::CpuPerGib, ratio: 0.40 }],
    },
    Case {
        name: "produce-snappy",
        what: "as produce-batch, of JSON in snappy: every record is validated by both",
        setting: Setting::PageCache,
        load: compressed(Compression::Snappy),
        targets: &[Target { figure: Figure::CpuPerGib, ratio: 0.40 }],
    },
    Case {
        name: "produce-gzip",
        what: "as produce-batch, of JSON in gzip: every record is validated by both",
        setting: Setting::PageCache,
        load: compressed(Compression::Gzip),
        targets: &[Target { figure: Figure::CpuPerGib, ratio: 0.60 }],
    },
    Case {
        name: "produce-small",
        what: "100-byte records, 16 KiB batches, 16 connections, acks=all",
        setting: Setting::PageCache,
        load: Load::Produce(SMALL),
        targets: &[Target { figure: Figure::CpuPerMillionRecords, ratio: 0.60 }],
    },
    Case {
        name: "produce-many-partitions",
        what: "4 KiB batches over 1,000 partitions, each touched before, 20 a request, acks=all",
        setting: Setting::PageCache,
        load: Load::Produce(MANY_PARTITIONS),
        targets: &[Target { figure: Figure::CpuPerGib, ratio: 0.30 }],
    },
    Case {
        name: "consume-catchup",
        what: "6 partitions read again and again from the page cache, 1 MiB of each a fetch",
        setting: Setting::PageCache,
        load: Load::CatchUp(CATCH_UP),
        targets: &[Target { figure: Figure::CpuPerGib, ratio: 1.0 }],
    },
    Case {
        name: "consume-tail",
        what: "100 MiB/s in as 16 KiB batches, 1 reader; latency from sending to having read",
        setting: Setting::PageCache,
        load: Load::Tail(TAIL),
        targets: &[Target { figure: Figure::CpuPerGib, ratio: 0.60 }],
    },
    Case {
        name: "latency",
        what: "one 1 KiB record in flight, acks=all",
        setting: Setting::PageCache,
        load: Load::Produce(LONE),
        targets: &[
            Target { figure: Figure::LatencyP50, ratio: 0.50 },
            Target { figure: Figure::CpuPerRequest, ratio: 0.35 },
        ],
    },
    Case {
        name: "latency-fsync",
        what: "one 1 KiB record in flight, acks=all, on disk when answered",
        setting: Setting::Synced,
        load: Load::Produce(ProduceLoad { requests: 1000, ..LONE }),
        targets: &[
            Target { figure: Figure::LatencyP50, ratio: 0.30 },
            Target { figure: Figure::CpuPerRequest, ratio: 0.20 },
        ],
    },
    Case {
        name: "produce-small-fsync",
        what: "as produce-small, on disk when answered",
        setting: Setting::Synced,
        load: Load::Produce(ProduceLoad { requests: 3200, ..SMALL }),
        targets: &[],
    },
    Case {
        name: "produce-batch-fsync",
        what: "as produce-batch, on disk when answered",
        setting: Setting::Synced,
        load: Load::Produce(ProduceLoad { requests: 1024, ..BATCH }),
        targets: &[],
    },
];
