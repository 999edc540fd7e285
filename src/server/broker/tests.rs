//! Three brokers in this process: records acknowledged with acks=all are on all of them, whichever leads.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::batch_builder::BatchBuilder;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset, or_minus_one};
use klamm_protocol::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use klamm_protocol::messages::create_topics_response::CreateTopicsResponse;
use klamm_protocol::messages::describe_producers_request::{
    DescribeProducersRequest, TopicRequest,
};
use klamm_protocol::messages::describe_producers_response::DescribeProducersResponse;
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use klamm_protocol::messages::fetch_response::{FetchResponse, PartitionData};
use klamm_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use klamm_protocol::messages::list_offsets_response::ListOffsetsResponse;
use klamm_protocol::messages::metadata_request::MetadataRequest;
use klamm_protocol::messages::metadata_response::MetadataResponse;
use klamm_protocol::messages::produce_request::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use klamm_protocol::messages::produce_response::ProduceResponse;
use klamm_protocol::{ErrorCode, Uuid};
use tokio::time::Instant;

use crate::Broker;
use crate::config::BrokerConfig;
use crate::net::peer::{Peer, PeerAddress};

/// The time limit of each wait.
const LIMIT: Duration = Duration::from_secs(40);
const IDS: [BrokerId; 3] = [1, 2, 3];

/// A cluster of combined nodes in a directory of its own.
struct Cluster {
    dir: PathBuf,
    voters: String,
    ports: Vec<u16>,
    /// Settings in addition to those that all clusters here have.
    settings: Vec<(&'static str, &'static str)>,
    brokers: Vec<Option<Broker>>,
}

fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

impl Cluster {
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    async fn start_with(settings: &[(&'static str, &'static str)]) -> Self {
        let ports = free_ports(2 * IDS.len());
        let voters = IDS.iter().zip(&ports).map(|(id, port)| format!("{id}@127.0.0.1:{port}"));
        let name = format!("klamm-replicas-{}", crate::random::uuid());
        let mut cluster = Self {
            dir: std::env::temp_dir().join(name),
            voters: voters.collect::<Vec<_>>().join(","),
            ports,
            settings: settings.to_vec(),
            brokers: Vec::new(),
        };
        let starting = IDS.map(|id| tokio::spawn(Broker::start(cluster.config(id))));
        for starting in starting {
            cluster.brokers.push(Some(starting.await.unwrap().unwrap()));
        }
        cluster
    }

    fn config(&self, id: BrokerId) -> BrokerConfig {
        let place = place(id);
        let (controller, client) = (self.ports[place], self.ports[IDS.len() + place]);
        let dirs = [self.log_dir(id, 1), self.log_dir(id, 2)].map(|dir| dir.display().to_string());
        let mut pairs = BTreeMap::from([
            ("process.roles", "broker,controller".to_owned()),
            ("node.id", id.to_string()),
            (
                "listeners",
                format!("PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}"),
            ),
            ("controller.listener.names", "CONTROLLER".to_owned()),
            ("controller.quorum.voters", self.voters.clone()),
            ("log.dirs", dirs.join(",")),
            ("log.flush.offset.checkpoint.interval.ms", "200".to_owned()),
            ("min.insync.replicas", "2".to_owned()),
            ("replica.lag.time.max.ms", "2000".to_owned()),
            ("broker.rack", format!("rack-{id}")),
            (
                "replica.selector.class",
                "org.apache.kafka.common.replica.RackAwareReplicaSelector".to_owned(),
            ),
        ]);
        pairs.extend(self.settings.iter().map(|(key, value)| (*key, (*value).to_owned())));
        let mut config = BrokerConfig::from_pairs(pairs).unwrap();
        config.cluster_id = Some(Uuid::from_bytes([5; 16]).to_string());
        config
    }

    fn log_dir(&self, id: BrokerId, number: u8) -> PathBuf {
        self.dir.join(format!("{id}-{number}"))
    }

    fn broker(&self, id: BrokerId) -> &Broker {
        self.brokers[place(id)].as_ref().unwrap()
    }

    fn running(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.iter().flatten()
    }

    async fn peer(&self, id: BrokerId) -> Peer {
        let port = self.ports[IDS.len() + place(id)];
        let address = PeerAddress { host: "127.0.0.1".into(), port };
        Peer::connect(&address, "test".into(), LIMIT).await.unwrap()
    }

    /// A topic of one partition, with segments of about `segment_bytes`.
    async fn create_topic(&self, name: &'static str, segment_bytes: u32) {
        let config = CreatableTopicConfig {
            name: "internal.segment.bytes".into(),
            value: Some(segment_bytes.to_string().into()),
        };
        let topic = CreatableTopic {
            name: name.into(),
            configs: vec![config],
            num_partitions: 1,
            replication_factor: 3,
            ..Default::default()
        };
        let request =
            CreateTopicsRequest { topics: vec![topic], timeout_ms: 20_000, ..Default::default() };
        let mut peer = self.peer(1).await;
        let response: CreateTopicsResponse = peer.send(&request, LIMIT).await.unwrap();
        assert_eq!(response.topics[0].error_code, 0, "{:?}", response.topics[0].error_message);
    }

    /// The leader (-1 for none) and the in-sync replicas, as the first running broker knows them.
    fn partition(&self) -> Option<(BrokerId, Vec<BrokerId>)> {
        let image = self.running().next()?.services.metadata_cache.image();
        let partition = image.topics.by_name("t")?.partition(0)?;
        let mut isr = partition.isr.clone();
        isr.sort_unstable();
        Some((or_minus_one(partition.leader), isr))
    }

    async fn wait_for(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !holds(self) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.partition());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Produces with acks=all until a leader acknowledges it; returns its offset.
    async fn produce(&self, value: &'static [u8]) -> Offset {
        let deadline = Instant::now() + LIMIT;
        loop {
            let error = match self.try_produce(value).await {
                Ok(offset) => return offset,
                Err(error) => error,
            };
            assert!(Instant::now() < deadline, "not acknowledged: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn try_produce(&self, value: &'static [u8]) -> Result<Offset, ErrorCode> {
        let (leader, _) = self.partition().ok_or(ErrorCode::UnknownTopicOrPartition)?;
        if leader < 0 || self.brokers[place(leader)].is_none() {
            return Err(ErrorCode::LeaderNotAvailable);
        }
        self.try_append(leader, BatchBuilder::new(0), value).await
    }

    /// Adds the record to `batch` and produces it with acks=all.
    async fn try_append(
        &self,
        leader: BrokerId,
        mut batch: BatchBuilder,
        value: &'static [u8],
    ) -> Result<Offset, ErrorCode> {
        batch.append(1, None, Some(value), &[]).unwrap();
        let data = PartitionProduceData { index: 0, records: Some(batch.build().unwrap().bytes) };
        let topic =
            TopicProduceData { name: "t".into(), partition_data: vec![data], ..Default::default() };
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 5000,
            topic_data: vec![topic],
            ..Default::default()
        };
        let mut peer = self.peer(leader).await;
        let response: ProduceResponse = peer.send_in(&request, 9, LIMIT).await.unwrap();
        let answer = &response.responses[0].partition_responses[0];
        match ErrorCode::from_code(answer.error_code).unwrap() {
            ErrorCode::None => Ok(answer.base_offset),
            error => Err(error),
        }
    }

    /// The answer of broker `id` to a consumer in the rack of broker `near`.
    async fn fetch(&self, id: BrokerId, near: BrokerId) -> PartitionData {
        self.fetch_from(0, 100, id, near).await
    }

    async fn fetch_from(
        &self,
        fetch_offset: Offset,
        max_wait_ms: i32,
        id: BrokerId,
        near: BrokerId,
    ) -> PartitionData {
        let partition = FetchPartition {
            partition: 0,
            fetch_offset,
            partition_max_bytes: 1 << 20,
            ..Default::default()
        };
        let topic =
            FetchTopic { topic: "t".into(), partitions: vec![partition], ..Default::default() };
        let request = FetchRequest {
            max_wait_ms,
            min_bytes: 1,
            topics: vec![topic],
            rack_id: format!("rack-{near}").into(),
            ..Default::default()
        };
        let mut peer = self.peer(id).await;
        let response: FetchResponse = peer.send_in(&request, 12, LIMIT).await.unwrap();
        response.responses[0].partitions[0].clone()
    }

    /// The latest offset of the partition, by broker `id`: for a replica, a consumer (-1) or the debugging consumer
    /// (-2).
    async fn list_end(
        &self,
        id: BrokerId,
        replica_id: BrokerId,
        current_leader_epoch: LeaderEpoch,
    ) -> (ErrorCode, Offset) {
        let partition =
            ListOffsetsPartition { partition_index: 0, current_leader_epoch, timestamp: -1 };
        let topic = ListOffsetsTopic { name: "t".into(), partitions: vec![partition] };
        let request = ListOffsetsRequest { replica_id, topics: vec![topic], ..Default::default() };
        let mut peer = self.peer(id).await;
        let response: ListOffsetsResponse = peer.send_in(&request, 7, LIMIT).await.unwrap();
        let answer = &response.topics[0].partitions[0];
        (ErrorCode::from_code(answer.error_code).unwrap(), answer.offset)
    }

    /// The bytes of the first segment of the partition's replica on a broker.
    fn log_of(&self, id: BrokerId) -> Bytes {
        std::fs::read(self.first_segment_of(id)).unwrap().into()
    }

    fn first_segment_of(&self, id: BrokerId) -> PathBuf {
        let logs = [1, 2].map(|dir| self.log_dir(id, dir).join("t-0/00000000000000000000.log"));
        logs.into_iter().find(|log| log.exists()).unwrap()
    }

    fn log_end_of(&self, id: BrokerId) -> Offset {
        let services = &self.broker(id).services;
        let image = services.metadata_cache.image();
        let topic = image.topics.by_name("t").unwrap();
        services.replicas.partitions.get(topic.id, 0).unwrap().view().unwrap().log_end()
    }

    async fn stop(&mut self, id: BrokerId) {
        self.brokers[place(id)].take().unwrap().shutdown().await;
    }

    async fn start_again(&mut self, id: BrokerId) {
        let started = Broker::start(self.config(id)).await.unwrap();
        self.brokers[place(id)] = Some(started);
    }

    async fn end(mut self) {
        let ending = self.brokers.drain(..).flatten().map(|broker| tokio::spawn(broker.shutdown()));
        for ending in ending.collect::<Vec<_>>() {
            ending.await.unwrap();
        }
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

fn place(id: BrokerId) -> usize {
    IDS.iter().position(|known| *known == id).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_all_have_acknowledged_survives_its_leader_and_logs_are_equal_byte_for_byte() {
    let mut cluster = Cluster::start().await;
    cluster.create_topic("t", 1 << 20).await;
    for expected in 0..20 {
        assert_eq!(cluster.produce(b"before").await, expected);
    }
    let (first, isr) = cluster.partition().unwrap();
    assert_eq!(isr, IDS);
    cluster.stop(first).await;
    cluster
        .wait_for("another leader", |c| c.partition().is_some_and(|p| p.0 > 0 && p.0 != first))
        .await;
    for expected in 20..40 {
        assert_eq!(cluster.produce(b"after").await, expected);
    }
    cluster.start_again(first).await;
    cluster.wait_for("all in sync", |c| c.partition().is_some_and(|p| p.1 == IDS)).await;
    assert_eq!(cluster.produce(b"again").await, 40);
    cluster.wait_for("equal logs", |c| IDS.iter().all(|id| c.log_end_of(*id) == 41)).await;
    let logs = IDS.map(|id| cluster.log_of(id));
    assert!(logs.iter().all(|log| *log == logs[0]));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_with_too_few_replicas_in_sync_refuses_producers_that_want_all() {
    let mut cluster = Cluster::start().await;
    cluster.create_topic("t", 1 << 20).await;
    cluster.produce(b"value").await;
    let (leader, _) = cluster.partition().unwrap();
    let followers = IDS.into_iter().filter(|id| *id != leader).collect::<Vec<_>>();
    cluster.stop(followers[0]).await;
    cluster.wait_for("a smaller ISR", |c| c.partition().is_some_and(|p| p.1.len() == 2)).await;
    assert_eq!(cluster.produce(b"value").await, 1);
    // Without the second follower there is no metadata quorum either: the ISR stays, and no record is committed. A leader
    // that is no controller sends its client to another broker, which may know more.
    cluster.stop(followers[1]).await;
    let refused = cluster.try_produce(b"value").await.unwrap_err();
    assert!(
        matches!(
            refused,
            ErrorCode::RequestTimedOut
                | ErrorCode::NotEnoughReplicas
                | ErrorCode::LeaderNotAvailable
                | ErrorCode::NotLeaderOrFollower
        ),
        "{refused}"
    );
    cluster.start_again(followers[1]).await;
    cluster.produce(b"value").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_is_sent_to_the_replica_in_its_rack_which_serves_what_is_committed() {
    let cluster = Cluster::start().await;
    cluster.create_topic("t", 1 << 20).await;
    cluster.produce(b"value").await;
    let (leader, _) = cluster.partition().unwrap();
    let follower = IDS.into_iter().find(|id| *id != leader).unwrap();
    let at_home = cluster.fetch(leader, leader).await;
    assert_eq!(at_home.preferred_read_replica, -1);
    assert!(!at_home.records.unwrap().is_empty());
    let sent_away = cluster.fetch(leader, follower).await;
    assert_eq!(sent_away.preferred_read_replica, follower);
    assert!(sent_away.records.unwrap().is_empty());
    let deadline = Instant::now() + LIMIT;
    loop {
        let near = cluster.fetch(follower, follower).await;
        assert_eq!((near.error_code, near.preferred_read_replica), (0, -1));
        // The follower learns with its next fetch that the record is committed.
        if near.high_watermark == 1 {
            break assert!(!near.records.unwrap().is_empty());
        }
        assert!(Instant::now() < deadline);
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_at_a_follower_reads_what_is_acknowledged_long_before_a_fetch_wait_is_over() {
    const FETCH_WAIT: Duration = Duration::from_secs(20);
    const CONSUMER_WAIT_MS: i32 = 15_000;
    let cluster = Cluster::start_with(&[
        ("replica.fetch.wait.max.ms", "20000"),
        ("replica.socket.timeout.ms", "30000"),
        ("replica.lag.time.max.ms", "30000"),
    ])
    .await;
    cluster.create_topic("t", 1 << 20).await;
    for expected in 0..6 {
        assert_eq!(cluster.produce(b"value").await, expected);
        let acknowledged = Instant::now();
        let (leader, _) = cluster.partition().unwrap();
        for follower in IDS.into_iter().filter(|id| *id != leader) {
            // No other record is produced: the follower's next answer only carries the high watermark.
            let read = cluster.fetch_from(expected, CONSUMER_WAIT_MS, follower, follower).await;
            assert_eq!((read.error_code, read.high_watermark), (0, expected + 1));
            assert!(!read.records.unwrap().is_empty());
        }
        let taken = acknowledged.elapsed();
        assert!(taken < FETCH_WAIT / 4, "{taken:?}");
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_tells_of_the_producers_that_have_written_to_it() {
    let cluster = Cluster::start().await;
    cluster.create_topic("t", 1 << 20).await;
    cluster.produce(b"value").await;
    let (leader, _) = cluster.partition().unwrap();
    let batch = BatchBuilder::new(0).producer(77, 3, 0);
    assert_eq!(cluster.try_append(leader, batch, b"idempotent").await, Ok(1));
    for id in IDS {
        let topic = TopicRequest { name: "t".into(), partition_indexes: vec![0] };
        let request = DescribeProducersRequest { topics: vec![topic] };
        let mut peer = cluster.peer(id).await;
        let response: DescribeProducersResponse = peer.send(&request, LIMIT).await.unwrap();
        let partition = &response.topics[0].partitions[0];
        assert_eq!(partition.error_code, 0, "{id}");
        let known = partition.active_producers.iter();
        let known: Vec<_> =
            known.map(|p| (p.producer_id, p.producer_epoch, p.last_sequence)).collect();
        assert_eq!(known, [(77, 3, 0)], "{id}");
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_says_that_a_request_is_ahead_of_it_before_it_says_that_it_does_not_lead() {
    let cluster = Cluster::start().await;
    cluster.create_topic("t", 1 << 20).await;
    cluster.produce(b"value").await;
    let (leader, _) = cluster.partition().unwrap();
    let follower = IDS.into_iter().find(|id| *id != leader).unwrap();
    assert_eq!(cluster.list_end(leader, -1, -1).await, (ErrorCode::None, 1));
    let unknown = (ErrorCode::UnknownLeaderEpoch, -1);
    assert_eq!(cluster.list_end(leader, -1, 99).await, unknown);
    assert_eq!(cluster.list_end(follower, -1, 99).await, unknown);
    let elsewhere = (ErrorCode::NotLeaderOrFollower, -1);
    assert_eq!(cluster.list_end(follower, -1, -1).await, elsewhere);
    // The record was acknowledged by all in-sync replicas, so this follower has it, even if it does not know that it is
    // committed.
    assert_eq!(cluster.list_end(follower, -2, -1).await, (ErrorCode::None, 1));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_knows_where_replicas_lie_and_moves_leaders_away_from_a_failed_directory() {
    let cluster = Cluster::start().await;
    // Each broker puts the first partition into its first directory, where the metadata log is as well.
    cluster.create_topic("first", 1 << 20).await;
    cluster.create_topic("t", 1 << 20).await;
    let is_known = |c: &Cluster| {
        let image = c.broker(1).services.metadata_cache.image();
        let Some(topic) = image.topics.by_name("t") else { return false };
        let Some(partition) = topic.partition(0) else { return false };
        IDS.iter().all(|id| {
            let actual =
                c.broker(*id).services.replicas.log_manager.directory_id_for(&topic.name, 0);
            actual.is_some() && partition.directory(*id) == actual
        })
    };
    cluster.wait_for("known directories", is_known).await;
    cluster.produce(b"before").await;
    let (leader, _) = cluster.partition().unwrap();
    let failing = cluster.log_dir(leader, 2);
    let place =
        cluster.broker(leader).services.replicas.log_manager.directory_of(&"t".into(), 0).unwrap();
    assert_eq!(place, failing);
    std::fs::rename(&failing, failing.with_extension("gone")).unwrap();
    let moved = |c: &Cluster| c.partition().is_some_and(|p| p.0 > 0 && p.0 != leader);
    cluster.wait_for("a leader in another directory", moved).await;
    assert_eq!(cluster.produce(b"after").await, 1);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_byte_is_not_served_and_fetched_again_from_a_peer() {
    let cluster = Cluster::start().await;
    cluster.create_topic("t", 500).await;
    for _ in 0..20 {
        cluster.produce(b"a value that takes some room").await;
    }
    let (leader, isr) = cluster.partition().unwrap();
    assert_eq!(isr, IDS);
    cluster.wait_for("equal logs", |c| IDS.iter().all(|id| c.log_end_of(*id) == 20)).await;
    let intact = cluster.log_of(leader);
    let path = cluster.first_segment_of(leader);
    let mut damaged = intact.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &damaged, 0).unwrap();
    let refused = cluster.fetch(leader, leader).await;
    assert_eq!(refused.error_code, ErrorCode::KafkaStorageError.code());
    assert!(refused.records.unwrap().is_empty());
    let moved = |c: &Cluster| c.partition().is_some_and(|p| p.0 > 0 && p.0 != leader);
    cluster.wait_for("another leader", moved).await;
    assert_eq!(cluster.produce(b"after").await, 20);
    let is_whole = |c: &Cluster| {
        c.partition().is_some_and(|p| p.1 == IDS)
            && c.log_end_of(leader) == 21
            && c.log_of(leader) == intact
    };
    cluster.wait_for("a repaired replica", is_whole).await;
    let kept = path.with_extension("log.damaged");
    assert_eq!(std::fs::read(kept).unwrap(), damaged);
    cluster.end().await;
}

#[tokio::test]
async fn a_broker_answers_its_peer() {
    let directory = crate::random::uuid().to_string();
    let directory = std::env::temp_dir().join(format!("klamm-peer-{directory}"));
    let config = BrokerConfig::from_pairs([
        ("listeners", "PLAINTEXT://127.0.0.1:0"),
        ("log.dirs", directory.to_str().unwrap()),
    ]);
    let broker = Broker::start(config.unwrap()).await.unwrap();
    let port = broker.addresses()[0].1.port();
    let address = PeerAddress { host: "127.0.0.1".into(), port };
    let mut peer = Peer::connect(&address, "test".into(), LIMIT).await.unwrap();
    for _ in 0..2 {
        let request = MetadataRequest::default();
        let answer: MetadataResponse = peer.send(&request, LIMIT).await.unwrap();
        assert_eq!(answer.brokers.len(), 1);
    }
    broker.shutdown().await;
    std::fs::remove_dir_all(directory).unwrap();
}
