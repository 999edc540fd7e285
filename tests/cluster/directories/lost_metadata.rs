//! Controllers that come up with an empty metadata log: whoever has the full one keeps it, sets nothing aside, and says what to
//! do.

use super::*;

const METADATA_LOG: &str = "__cluster_metadata-0";
/// Later than those of the life before: its start, an election, and the end of each node.
const LATER_EPOCH: i32 = 5;
/// The metadata log failed.
const FAILED: i32 = 1;

/// Three stopped nodes.
fn three_stopped() -> Scene {
    let setup = ClusterSetup::of(&[Flavour::Klamm; 3]).with_second_directories();
    let mut scene = Scene::begin(setup.start(), &[1, 2, 3]);
    scene.elect_again();
    scene.produce();
    for id in [1, 2, 3] {
        scene.cluster.stop(id);
    }
    scene
}

impl Scene {
    /// Gives a node a copy of the metadata log of another; neither runs.
    fn hand_metadata_log(&self, from: i32, to: i32) {
        let (from, to) = (self.directory(from, 1), self.directory(to, 1).join(METADATA_LOG));
        if to.exists() {
            std::fs::remove_dir_all(&to).unwrap();
        }
        copy(&from.join(METADATA_LOG), &to);
        std::fs::remove_file(to.join("quorum-state")).unwrap();
    }

    /// Replaces a node's directories by newly formatted ones.
    fn replace(&self, id: i32, numbers: &[usize]) {
        for number in numbers {
            self.take_away(id, *number);
        }
        self.format_as(id, &self.directory(3, 1));
    }

    /// Another epoch.
    fn elect_again(&mut self) {
        let controller = self.cluster.controller();
        self.cluster.stop(controller);
        self.cluster.start_again(controller);
    }

    fn says(&self, id: i32, words: &str) {
        let log = || self.cluster.node(id).broker().log();
        until_true(&format!("node {id} to say: {words}"), LIMIT, || log().contains(words));
    }
}

#[test]
fn two_voters_that_lost_their_metadata_logs_beside_partitions_do_not_elect_each_other() {
    let _machine = alone();
    let mut scene = three_stopped();
    for id in [1, 2] {
        scene.replace(id, &[1]);
        scene.cluster.spawn(id);
    }
    for id in [1, 2] {
        scene.says(id, "This controller does not vote before it has the log of a leader");
        scene.cluster.kill(id);
    }
    scene.hand_metadata_log(3, 1);
    for id in [1, 2, 3] {
        scene.cluster.spawn(id);
    }
    scene.cluster.until_whole();
    scene.assert_nothing_lost(0, "the metadata log was handed over");
    [1, 2, 3].iter().for_each(|id| scene.assert_no_strays(*id, &[1, 2]));
}

#[test]
fn a_node_with_the_full_metadata_log_does_not_follow_controllers_that_have_begun_anew() {
    let _machine = alone();
    let mut scene = three_stopped();
    for id in [1, 2] {
        scene.replace(id, &[1, 2]);
        scene.cluster.spawn(id);
    }
    [1, 2].iter().for_each(|id| scene.cluster.until_unfenced(*id));
    // Epochs are what logs are told apart by, and the node with the full one would win an election by a later epoch.
    while scene.cluster.quorum().unwrap().epoch <= LATER_EPOCH {
        scene.elect_again();
    }
    let ended = scene.cluster.ends_as(3, Flavour::Klamm);
    let log = scene.cluster.node(3).broker().log();
    assert_eq!(ended.code(), Some(FAILED), "{log}");
    let refused = "does not have what the quorum had committed: its log leaves the one in";
    assert!(log.contains(refused), "{log}");
    scene.assert_no_strays(3, &[1, 2]);
    for id in [1, 2] {
        scene.cluster.kill(id);
        scene.hand_metadata_log(3, id);
    }
    for id in [1, 2, 3] {
        scene.cluster.spawn(id);
    }
    scene.cluster.until_whole();
    scene.assert_nothing_lost(0, "the metadata log was handed over");
    scene.assert_no_strays(3, &[1, 2]);
}
