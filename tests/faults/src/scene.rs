//! A cluster under load and under observation: faults are injected into it, their cost is measured, and at the end its history
//! is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use klamm_testbed::{Cluster, until_true};

use crate::anomaly::Anomaly;
use crate::consumer_group::{ConsumerGroup, read_all};
use crate::history::{History, RecordId};
use crate::load::{Load, LoadSetup};
use crate::stall::{Stalls, longest_stall};

/// Longer than any stall that a healthy client can see.
const RECOVERY_LIMIT: Duration = Duration::from_secs(120);
/// How long the last records may take to be acknowledged or given up.
const END_LIMIT: Duration = Duration::from_secs(120);
/// Records sent to each partition after a fault that have to be acknowledged until the fault counts as overcome.
const STEADY_RECORDS: u64 = 50;
const ANOMALIES_SHOWN: usize = 20;

/// A cluster with a topic of three replicas, a load on it and a group that reads it.
#[derive(Debug)]
pub struct Scene {
    // Before the cluster: clients are better gone before their brokers.
    load: Load,
    readers: ConsumerGroup,
    topic: String,
    cluster: Cluster,
}

impl Scene {
    /// Begins on a cluster that runs. Partition `p` has its replicas on all of `replicas`, in turn the `p`-th one first.
    ///
    /// # Panics
    /// When load and readers do not come to run steadily.
    pub fn begin(cluster: Cluster, replicas: &[i32], setup: LoadSetup) -> Self {
        let partitions = usize::try_from(setup.partitions).expect("partitions are counted");
        let assignment: Vec<Vec<i32>> = (0..partitions)
            .map(|partition| {
                let mut replicas = replicas.to_vec();
                let first = partition % replicas.len();
                replicas.rotate_left(first);
                replicas
            })
            .collect();
        let topic = cluster.create_topic("load", &assignment, &[("min.insync.replicas", "2")]);
        let load = Load::start(&cluster.bootstrap(), &topic, setup);
        let readers = ConsumerGroup::start(&cluster.bootstrap(), &topic, 2);
        let scene = Self { load, readers, topic, cluster };
        scene.until_steady();
        until_true("the group to read", RECOVERY_LIMIT, || scene.readers.count() > 0);
        scene.cluster.until_whole();
        scene
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The cluster, to do something to it.
    pub fn cluster_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// The topic under load.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partitions under load that a node leads.
    ///
    /// # Panics
    /// When no broker tells.
    pub fn led_by(&self, id: i32) -> BTreeSet<i32> {
        let partitions = self.cluster.partitions_of(&self.topic).expect("a broker is awake");
        let led = partitions.iter().filter(|partition| partition.leader == id);
        led.map(|partition| partition.partition).collect()
    }

    /// The sum of the leader epochs of the partitions under load: how often leaders were elected so far.
    ///
    /// # Panics
    /// When no broker tells.
    pub fn leader_epochs(&self) -> i32 {
        let partitions = self.cluster.partitions_of(&self.topic).expect("a broker is awake");
        partitions.iter().map(|partition| partition.leader_epoch).sum()
    }

    /// Waits until every partition has acknowledged records that were sent from now on.
    ///
    /// # Panics
    /// When one does not in time, telling which.
    #[track_caller]
    pub fn until_steady(&self) {
        let recording = self.load.recording();
        let goals: BTreeMap<i32, u64> = (0..self.load.setup().partitions)
            .map(|partition| {
                let sent = recording.written().sent.get(&partition).copied().unwrap_or(0);
                (partition, sent + STEADY_RECORDS)
            })
            .collect();
        let missing = || -> Vec<i32> {
            let written = recording.written();
            let behind = goals.iter().filter(|(partition, goal)| {
                written.counts.get(partition).copied().unwrap_or(0) < **goal
            });
            behind.map(|(partition, _)| *partition).collect()
        };
        let steady = klamm_testbed::within(RECOVERY_LIMIT, || missing().is_empty());
        assert!(
            steady,
            "no records of partitions {:?} are acknowledged: {:?}\nfailed: {:?}",
            missing(),
            self.cluster.partitions_of(&self.topic),
            recording.written().failed.first(),
        );
    }

    /// Does something to a node and measures how long the partitions had to wait for it, until all are steady again.
    ///
    /// # Panics
    /// When they do not become steady.
    #[track_caller]
    pub fn measure(&mut self, victim: i32, fault: impl FnOnce(&mut Cluster, i32)) -> Stalls {
        let led = self.led_by(victim);
        let all: BTreeSet<i32> = (0..self.load.setup().partitions).collect();
        let from = self.load.recording().elapsed();
        fault(&mut self.cluster, victim);
        self.until_steady();
        let to = self.load.recording().elapsed();
        let written = self.load.recording().written();
        let stall = |partitions| longest_stall(&written.acknowledged, partitions, from, to);
        Stalls { led: stall(&led), others: stall(&all.difference(&led).copied().collect()) }
    }

    /// Ends the load, reads everything, and returns the cluster with all that its clients saw.
    ///
    /// # Panics
    /// When the load does not end or the topic cannot be read.
    pub fn finish(self) -> (Cluster, History) {
        self.finish_within(END_LIMIT)
    }

    /// [`finish`](Self::finish) where producers may never go on: after `limit` they give up what is left.
    ///
    /// # Panics
    /// When the topic cannot be read.
    pub fn finish_within(self, limit: Duration) -> (Cluster, History) {
        let Self { load, readers, topic, cluster } = self;
        let partitions = load.setup().partitions;
        let written = load.finish(limit);
        let stored = read_all(&cluster.bootstrap(), &topic, partitions);
        let polled = readers.finish(&stored);
        let mut history = History {
            sent: written.sent,
            acknowledged: written.acknowledged,
            failed: written.failed.into_iter().map(|(id, _)| id).collect(),
            stored,
            polled,
            sent_twice: BTreeSet::new(),
        };
        history.sent_twice = sent_twice(&cluster, &topic, &history);
        (cluster, history)
    }

    /// [`finish`](Self::finish), and the cluster has kept every promise.
    ///
    /// # Panics
    /// With the first anomalies, if there are any, and when the producers gave records up.
    #[track_caller]
    pub fn finish_without_anomaly(self) -> Cluster {
        let (cluster, history) = self.finish();
        assert_eq!(history.failed, [], "no record is given up");
        let anomalies = history.anomalies();
        assert!(anomalies.is_empty(), "{}", listing(&anomalies));
        cluster
    }
}

/// Records that a broker could not know for repetitions.
///
/// librdkafka takes NOT_LEADER_OR_FOLLOWER for "not stored", though the next leader may have the record already. Usually that
/// leader sees the repetition. But when requests overtake one another on their way to two leaders (OUT_OF_ORDER_SEQUENCE_NUMBER),
/// librdkafka begins a new producer epoch first, with any broker, and what it then repeats is a new record.
fn sent_twice(cluster: &Cluster, topic: &str, history: &History) -> BTreeSet<RecordId> {
    let anomalies = history.anomalies();
    let repeated = anomalies.iter().filter_map(|anomaly| match anomaly {
        Anomaly::Duplicated { id, offsets } => Some((*id, offsets)),
        _ => None,
    });
    let differ = |(id, offsets): &(RecordId, &Vec<i64>)| {
        let producers = offsets.iter().map(|offset| {
            let batch = cluster.batch_at(topic, id.partition, *offset).ok()?;
            Some((batch.producer_id, batch.producer_epoch))
        });
        let producers: Option<BTreeSet<_>> = producers.collect();
        producers.is_some_and(|producers| producers.len() == offsets.len())
    };
    repeated.filter(differ).map(|(id, _)| id).collect()
}

fn listing(anomalies: &[Anomaly]) -> String {
    let mut text = format!("{} anomalies:\n", anomalies.len());
    for anomaly in anomalies.iter().take(ANOMALIES_SHOWN) {
        writeln!(text, "  {anomaly}").expect("a string takes text");
    }
    text
}
