//! Small clusters for the tests of handlers.

use klamm_metadata::image::ClusterImage;
use klamm_protocol::Uuid;
use klamm_protocol::ids::BrokerId;
use klamm_protocol::messages::partition_record::PartitionRecord;
use klamm_protocol::messages::register_broker_record::{BrokerEndpoint, RegisterBrokerRecord};
use klamm_protocol::messages::topic_record::TopicRecord;
use klamm_protocol::metadata_record::MetadataRecord;

use super::PublishedImage;

/// The listener of all brokers.
pub(crate) const LISTENER: &str = "PLAINTEXT";

/// The cluster after these records.
pub(crate) fn published(records: Vec<MetadataRecord>) -> PublishedImage {
    let mut image = ClusterImage::default();
    records.iter().for_each(|record| image.replay(record).unwrap());
    let end_offset = i64::try_from(records.len()).unwrap();
    PublishedImage { image, end_offset, kraft_version: 0 }
}

pub(crate) fn broker(id: BrokerId) -> MetadataRecord {
    registration(id, false)
}

pub(crate) fn fenced_broker(id: BrokerId) -> MetadataRecord {
    registration(id, true)
}

fn registration(broker_id: BrokerId, fenced: bool) -> MetadataRecord {
    let endpoint = BrokerEndpoint {
        name: LISTENER.into(),
        host: "localhost".into(),
        port: 9092,
        security_protocol: 0,
    };
    MetadataRecord::RegisterBroker(RegisterBrokerRecord {
        broker_id,
        fenced,
        end_points: vec![endpoint],
        ..Default::default()
    })
}

/// A topic whose partitions brokers 1 and 2 have, led by broker 1. `byte` makes its id.
pub(crate) fn topic(name: &str, byte: u8, partitions: i32) -> Vec<MetadataRecord> {
    let topic_id = Uuid::from_bytes([byte; 16]);
    let topic = MetadataRecord::Topic(TopicRecord { name: name.into(), topic_id });
    let partition = |partition_id| {
        MetadataRecord::Partition(PartitionRecord {
            partition_id,
            topic_id,
            replicas: vec![1, 2],
            isr: vec![1, 2],
            leader: 1,
            ..Default::default()
        })
    };
    std::iter::once(topic).chain((0..partitions).map(partition)).collect()
}
