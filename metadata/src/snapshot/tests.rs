//! Random decisions: the image replayed from the log, from a snapshot, and from bytes is the same, and its partitions
//! keep their invariants.

use klamm_protocol::messages::alter_partition_request::{
    AlterPartitionRequest, BrokerState, PartitionData, TopicData,
};
use klamm_protocol::messages::create_partitions_request::{
    CreatePartitionsRequest, CreatePartitionsTopic,
};
use klamm_protocol::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use klamm_protocol::messages::delete_topics_request::DeleteTopicsRequest;
use proptest::prelude::*;

use super::*;
use crate::controller::create_topics::CreateTopicsAccess;
use crate::controller::delete_topics::DeleteTopicsAccess;
use crate::controller::testing::{Testbed, registration, uuid};
use crate::loader::MetadataLoader;

/// An event of a cluster of brokers 1 to 4 and topics "t0" to "t3".
#[derive(Debug, Clone)]
enum Event {
    Start { broker: i32, incarnation: u8, clean: bool },
    Heartbeat { broker: i32, fence: bool, shut_down: bool },
    Create { topic: u8, partitions: i32, replicas: i16, min_isr: Option<u8> },
    Grow { topic: u8, partitions: i32 },
    Delete { topic: u8 },
    Propose { topic: u8, partition: i32, isr: Vec<i32> },
    Pass { ms: i64 },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let broker = 1..=4;
    let topic = || 0u8..4;
    let event = prop_oneof![
        2 => (broker.clone(), 0u8..4, any::<bool>())
            .prop_map(|(broker, incarnation, clean)| Event::Start { broker, incarnation, clean }),
        4 => (broker, prop::bool::weighted(0.2), prop::bool::weighted(0.1))
            .prop_map(|(broker, fence, shut_down)| Event::Heartbeat { broker, fence, shut_down }),
        3 => (topic(), 1..5, 1i16..4, prop::option::of(1u8..4)).prop_map(
            |(topic, partitions, replicas, min_isr)| Event::Create {
                topic,
                partitions,
                replicas,
                min_isr,
            }
        ),
        1 => (topic(), 1..8).prop_map(|(topic, partitions)| Event::Grow { topic, partitions }),
        1 => topic().prop_map(|topic| Event::Delete { topic }),
        3 => (topic(), 0..4, prop::collection::vec(1..=4, 1..4))
            .prop_map(|(topic, partition, isr)| Event::Propose { topic, partition, isr }),
        1 => (0i64..12_000).prop_map(|ms| Event::Pass { ms }),
    ];
    prop::collection::vec(event, 1..60)
}

impl Testbed {
    fn on(&mut self, event: &Event) {
        match event {
            Event::Start { broker, incarnation, clean } => {
                let known = self.controller.image().brokers.get(*broker);
                let mut request = registration(*broker);
                request.incarnation_id = uuid(100 + 10 * incarnation);
                request.previous_broker_epoch =
                    if *clean { known.map_or(-1, |broker| broker.epoch) } else { -1 };
                let next = self.next_offset();
                let outcome =
                    self.controller.on_broker_registration(&request, true, next, self.now_ms);
                // A second process may be refused because of the first one's session.
                drop(self.apply(outcome));
            }
            Event::Heartbeat { broker, fence, shut_down } => {
                if self.controller.image().brokers.get(*broker).is_some() {
                    self.heartbeat(*broker, |heartbeat| {
                        (heartbeat.want_fence, heartbeat.want_shut_down) = (*fence, *shut_down);
                    });
                }
            }
            Event::Create { topic, partitions, replicas, min_isr } => {
                let configs = min_isr.iter().map(|value| CreatableTopicConfig {
                    name: "min.insync.replicas".into(),
                    value: Some(value.to_string().into()),
                });
                let topic = CreatableTopic {
                    name: format!("t{topic}").into(),
                    num_partitions: *partitions,
                    replication_factor: *replicas,
                    configs: configs.collect(),
                    ..Default::default()
                };
                let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
                let outcome = self.controller.on_create_topics(
                    &request,
                    CreateTopicsAccess::ALL,
                    &mut self.random,
                );
                self.apply(outcome);
            }
            Event::Grow { topic, partitions } => {
                let name = format!("t{topic}").into();
                let topic = CreatePartitionsTopic { name, count: *partitions, assignments: None };
                let request = CreatePartitionsRequest { topics: vec![topic], ..Default::default() };
                let outcome =
                    self.controller.on_create_partitions(&request, &|_| true, &mut self.random);
                self.apply(outcome);
            }
            Event::Delete { topic } => {
                let topic_names = vec![format!("t{topic}").into()];
                let request = DeleteTopicsRequest { topic_names, ..Default::default() };
                let outcome = self.controller.on_delete_topics(&request, DeleteTopicsAccess::ALL);
                self.apply(outcome);
            }
            Event::Propose { topic, partition, isr } => self.propose(*topic, *partition, isr),
            Event::Pass { ms } => {
                self.now_ms += ms;
                while let Some(outcome) = self.controller.on_tick(self.now_ms) {
                    self.apply(outcome);
                }
            }
        }
    }

    /// The partition's leader proposes an ISR of those of these brokers that are replicas.
    fn propose(&mut self, topic: u8, partition_index: i32, isr: &[i32]) {
        let image = self.controller.image();
        let Some(topic) = image.topics.by_name(&format!("t{topic}")) else { return };
        let Some(partition) = topic.partition(partition_index) else { return };
        let Some(leader) = partition.leader.and_then(|id| image.brokers.get(id)) else { return };
        let mut isr = isr.to_vec();
        isr.push(leader.id);
        isr.sort_unstable();
        isr.dedup();
        let states = isr.iter().map(|id| BrokerState { broker_id: *id, broker_epoch: -1 });
        let data = PartitionData {
            partition_index,
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            new_isr_with_epochs: states.collect(),
            ..Default::default()
        };
        let request = AlterPartitionRequest {
            broker_id: leader.id,
            broker_epoch: leader.epoch,
            topics: vec![TopicData { topic_id: topic.id, partitions: vec![data] }],
        };
        let outcome = self.controller.on_alter_partition(&request);
        self.apply(outcome);
    }
}

fn check_partitions(image: &ClusterImage) {
    for (topic, index, partition) in image.topics.all_partitions() {
        let name = format!("{}-{index}: {partition:?}", topic.name);
        assert_eq!(partition.directories.len(), partition.replicas.len(), "{name}");
        assert!(partition.isr.iter().all(|id| partition.replicas.contains(id)), "{name}");
        assert!(partition.elr.iter().all(|id| !partition.isr.contains(id)), "{name}");
        let Some(leader) = partition.leader else { continue };
        assert!(partition.isr.contains(&leader), "{name}");
        // Not "active": as in Kafka, a broker that began a controlled shutdown and does not stop can be unfenced and
        // stays in controlled shutdown until it registers again.
        assert!(image.brokers.is_alive(leader), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn log_snapshot_and_bytes_give_the_same_image(events in events(), elr in any::<bool>()) {
        let mut testbed = Testbed::new(&[("eligible.leader.replicas.version", i16::from(elr))]);
        for event in &events {
            testbed.on(event);
            check_partitions(testbed.controller.image());
        }
        let image = testbed.controller.image();
        let version = image.metadata_version();
        let mut replayed = MetadataLoader::default();
        for (offset, record) in (0..).zip(&testbed.log) {
            let frame = record.to_frame(version.record_version(record)).unwrap();
            let read = MetadataRecord::from_frame(frame).unwrap();
            prop_assert_eq!(&read, record, "a record survives its version");
            replayed.replay(&read, offset).unwrap();
        }
        prop_assert_eq!(replayed.newest(), image);
        let snapshot = records(image);
        let loaded = MetadataLoader::from_snapshot(&snapshot, testbed.next_offset()).unwrap();
        prop_assert_eq!(loaded.newest(), image);
        prop_assert_eq!(records(loaded.newest()), snapshot);
    }
}

#[test]
fn a_snapshot_begins_with_metadata_version_and_keeps_kafkas_order() {
    let mut testbed = Testbed::with_brokers([1]);
    testbed.create("t", &[&[1]], &[("retention.ms", "1")]);
    let kinds: Vec<i16> =
        records(testbed.controller.image()).iter().map(MetadataRecord::api_key).collect();
    assert_eq!(kinds, [12, 12, 0, 2, 3, 4, 4]);
    let first = &records(testbed.controller.image())[0];
    assert!(matches!(first, MetadataRecord::FeatureLevel(f) if f.name == "metadata.version"));
}
