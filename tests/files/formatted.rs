//! Directories made by kafka-storage, and what it says about ours.

use klamm_testbed::{Broker, Setup, tool};

#[test]
fn a_directory_formatted_by_kafka_storage_is_taken_with_its_cluster_id() {
    let broker = Setup::under_test().formatted_by_kafka("4L6g3nShT-eMCtK--X86sw").start();
    assert_eq!(
        broker.tool("kafka-cluster cluster-id").ok(),
        "Cluster ID: 4L6g3nShT-eMCtK--X86sw\n"
    );
    let topic = broker.create_topic("formatted", "");
    broker.produce_lines(&topic, &["one"]);
    assert_eq!(broker.consume_lines(&topic, 1), ["one"]);
}

#[test]
fn a_directory_formatted_for_a_dynamic_quorum_has_its_node_as_voter() {
    let setup = Setup::under_test().with_dynamic_quorum();
    let broker = setup.formatted_by_kafka("4L6g3nShT-eMCtK--X86sw").start();
    let status = broker.tool("kafka-metadata-quorum describe --status").ok();
    let voters = status.lines().find(|line| line.starts_with("CurrentVoters:")).unwrap();
    assert!(voters.contains(r#""id": 1"#) && voters.contains("directoryId"), "{status}");
    let features = broker.tool("kafka-features describe").ok();
    let kraft = features.lines().find(|line| line.contains("kraft.version")).unwrap();
    assert!(kraft.contains("FinalizedVersionLevel: 1"), "{features}");
}

#[test]
fn kafka_storage_finds_nothing_wrong_with_the_directory() {
    let mut broker = Broker::start();
    broker.stop();
    let info =
        tool("kafka-storage info --config").arg(broker.properties().display().to_string()).ok();
    assert!(info.contains("Found log directory:") && !info.contains("Found problem"), "{info}");
    assert!(info.contains("Found metadata: {") && info.contains("node.id=1"), "{info}");
}
