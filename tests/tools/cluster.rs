//! kafka-cluster, kafka-metadata-quorum, kafka-features, kafka-broker-api-versions.

use klamm_testbed::Broker;

use crate::table::{columns, rows};

/// The value behind `name:` in a list of them.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).trim()
}

#[test]
fn the_cluster_id_is_the_one_in_the_data_directory() {
    let broker = Broker::shared();
    let said = broker.tool("kafka-cluster cluster-id").ok();
    let id = field(&said, "Cluster ID");
    let properties = std::fs::read_to_string(broker.data().join("meta.properties")).unwrap();
    assert!(properties.lines().any(|line| line == format!("cluster.id={id}")), "{properties}");
    let status = broker.tool("kafka-metadata-quorum describe --status").ok();
    assert_eq!(field(&status, "ClusterId"), id);
}

#[test]
fn the_one_node_is_listed_with_its_address() {
    let broker = Broker::shared();
    let listed = broker.tool("kafka-cluster list-endpoints").ok();
    let (host, port) = broker.bootstrap().split_once(':').unwrap();
    assert_eq!(rows(&listed)[1], ["1", host, port, "null", "unfenced", "broker"], "{listed}");
}

#[test]
fn the_quorum_has_one_voter_that_leads_and_lags_nothing() {
    let broker = Broker::shared();
    broker.create_topic("quorum", "");
    let status = broker.tool("kafka-metadata-quorum describe --status").ok();
    assert_eq!(field(&status, "LeaderId"), "1");
    assert_eq!(field(&status, "MaxFollowerLag"), "0");
    assert_eq!(field(&status, "MaxFollowerLagTimeMs"), "0");
    assert!(field(&status, "LeaderEpoch").parse::<i32>().unwrap() >= 1, "{status}");
    assert!(field(&status, "HighWatermark").parse::<i64>().unwrap() > 1, "{status}");
    assert!(field(&status, "CurrentVoters").contains(r#""id": 1"#), "{status}");
    assert_eq!(field(&status, "CurrentObservers"), "[]");

    let replication = broker.tool("kafka-metadata-quorum describe --replication").ok();
    assert_eq!(columns(&replication, &["NodeId", "Lag", "Status"]), [["1", "0", "Leader"]]);
}

#[test]
fn features_are_supported_and_finalized_as_in_a_new_cluster() {
    let broker = Broker::shared();
    let described = broker.tool("kafka-features describe").ok();
    let finalized = |feature: &str| {
        let row = rows(&described).into_iter().find(|row| row[1] == feature);
        row.unwrap_or_else(|| panic!("no {feature} in\n{described}"))[7].to_owned()
    };
    assert_eq!(finalized("metadata.version"), "4.3-IV0");
    assert_eq!(finalized("kraft.version"), "0");
}

#[test]
fn every_api_that_this_client_needs_is_usable() {
    let broker = Broker::shared();
    let said = broker.tool("kafka-broker-api-versions").ok();
    assert!(
        said.starts_with(&format!(
            "{} (id: 1 rack: null isFenced: false) -> (",
            broker.bootstrap()
        )),
        "{said}"
    );
    for api in [
        "Produce(0): 0 to 13 [usable: 13]",
        "Fetch(1): 4 to 18 [usable: 18]",
        "ListOffsets(2): 1 to 11 [usable: 11]",
        "Metadata(3): 0 to 13 [usable: 13]",
        "OffsetCommit(8): 2 to 10 [usable: 10]",
        "OffsetFetch(9): 1 to 10 [usable: 10]",
        "FindCoordinator(10): 0 to 6 [usable: 6]",
        "JoinGroup(11): 0 to 9 [usable: 9]",
        "Heartbeat(12): 0 to 4 [usable: 4]",
        "LeaveGroup(13): 0 to 5 [usable: 5]",
        "SyncGroup(14): 0 to 5 [usable: 5]",
        "DescribeGroups(15): 0 to 6 [usable: 6]",
        "ListGroups(16): 0 to 5 [usable: 5]",
        "ApiVersions(18): 0 to 4 [usable: 4]",
        "CreateTopics(19): 2 to 7 [usable: 7]",
        "DeleteTopics(20): 1 to 6 [usable: 6]",
        "DeleteRecords(21): 0 to 2 [usable: 2]",
        "InitProducerId(22): 0 to 5 [usable: 5]",
        "OffsetForLeaderEpoch(23): 2 to 4 [usable: 4]",
        "DescribeConfigs(32): 1 to 4 [usable: 4]",
        "AlterConfigs(33): 0 to 2 [usable: 2]",
        "DescribeLogDirs(35): 1 to 5 [usable: 5]",
        "CreatePartitions(37): 0 to 3 [usable: 3]",
        "DeleteGroups(42): 0 to 2 [usable: 2]",
        "IncrementalAlterConfigs(44): 0 to 1 [usable: 1]",
        "OffsetDelete(47): 0 [usable: 0]",
        "DescribeQuorum(55): 0 to 2 [usable: 2]",
        "DescribeCluster(60): 0 to 2 [usable: 2]",
        "DescribeProducers(61): 0 [usable: 0]",
        "DescribeTopicPartitions(75): 0 [usable: 0]",
    ] {
        assert!(
            said.lines().any(|line| line.trim().trim_end_matches(',') == api),
            "{api} missing\n{said}"
        );
    }
}
