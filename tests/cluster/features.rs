//! Clusters that are formatted with the defaults of 4.3 work, whoever formats them and however many brokers come later.

use klamm_testbed::{Cluster, ClusterSetup, Flavour, Roles};

use crate::stage::alone;

/// One combined node, which seems to be alone, and two brokers.
fn one_controller() -> ClusterSetup {
    let flavour = Flavour::under_test();
    ClusterSetup::empty()
        .node(1, flavour, Roles::Combined)
        .node(2, flavour, Roles::Broker)
        .node(3, flavour, Roles::Broker)
        .with_all_features()
}

/// The levels that the cluster has finalized, by name.
fn finalized(cluster: &Cluster) -> Vec<(String, String)> {
    let described = cluster.tool("kafka-features describe").ok();
    let level = |line: &str, name: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == format!("{name}:"))?;
        words.get(at + 1).map(|word| (*word).to_owned())
    };
    let lines = described.lines();
    lines
        .filter_map(|line| Some((level(line, "Feature")?, level(line, "FinalizedVersionLevel")?)))
        .filter(|(_, level)| level != "0" && level != "-")
        .collect()
}

#[track_caller]
fn assert_works(cluster: &Cluster) {
    cluster.create_topic("whole", &[vec![1, 2, 3], vec![2, 3, 1], vec![3, 1, 2]], &[]);
    if Flavour::under_test() == Flavour::Klamm {
        let finalized = finalized(cluster);
        let level = |name: &str| {
            let found = finalized.iter().find(|(known, _)| known == name);
            found.map(|(_, level)| level.as_str())
        };
        assert_eq!(level("metadata.version"), Some("4.3-IV0"), "{finalized:?}");
        assert_eq!(level("eligible.leader.replicas.version"), Some("1"), "{finalized:?}");
        assert_eq!(level("share.version"), None, "{finalized:?}");
        assert_eq!(level("streams.version"), None, "{finalized:?}");
    }
}

#[test]
fn brokers_join_a_combined_node_that_klamm_formatted() {
    let _machine = alone();
    assert_works(&one_controller().formatted_by_klamm().start());
}

#[test]
fn brokers_join_a_combined_node_that_kafka_formatted() {
    let _machine = alone();
    assert_works(&one_controller().start());
}

#[test]
fn brokers_join_a_standalone_voter_that_klamm_formatted() {
    let _machine = alone();
    assert_works(&one_controller().with_standalone_quorum().formatted_by_klamm().start());
}

#[test]
fn three_voters_that_klamm_formatted_make_a_cluster() {
    let _machine = alone();
    let setup = ClusterSetup::under_test().with_all_features().formatted_by_klamm();
    assert_works(&setup.clone().start());
    assert_works(&setup.with_dynamic_quorum().start());
}
