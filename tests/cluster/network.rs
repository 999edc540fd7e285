//! Links between nodes that fail in one direction: writes go on or move, no leader is fought over, and healing mends everything.

use std::time::Duration;

use klamm_faults::Scene;
use klamm_testbed::{ClusterSetup, Network, until};

use crate::stage::{alone, scene};

/// Epochs of the quorum that one cut and its healing may use up: a step-down, an election or two, and one more after the healing.
const MAX_ELECTIONS: i32 = 4;
const LIMIT: Duration = Duration::from_secs(60);

fn start(network: &Network) -> Scene {
    let setup = (1..=3).fold(ClusterSetup::under_test(), |setup, id| {
        setup.on_host(id, &network.address(id), &network.namespace(id))
    });
    scene(setup.set("replica.lag.time.max.ms", "3000").start())
}

fn epoch(scene: &Scene) -> i32 {
    until("the quorum's epoch", LIMIT, || scene.cluster().quorum().ok()).epoch
}

/// Cuts links one after another and checks that each is survived.
#[track_caller]
fn survive(links: impl Fn(&Scene) -> Vec<(i32, i32)>) {
    let _machine = alone();
    let network = Network::new(3);
    let scene = start(&network);
    for (from, to) in links(&scene) {
        let before = epoch(&scene);
        network.cut(from, to);
        scene.until_steady();
        network.heal();
        scene.until_steady();
        scene.cluster().until_whole();
        let elections = epoch(&scene) - before;
        assert!(elections <= MAX_ELECTIONS, "{elections} elections without {from} -> {to}");
    }
    scene.finish_without_anomaly();
}

/// The active controller and the two others.
fn roles(scene: &Scene) -> (i32, [i32; 2]) {
    let controller = scene.cluster().controller();
    let others = scene.cluster().ids().into_iter().filter(|id| *id != controller);
    let others: Vec<i32> = others.collect();
    (controller, others.try_into().expect("there are three nodes"))
}

#[test]
fn a_controller_that_one_node_does_not_hear_or_that_does_not_hear_one_node_is_lived_with() {
    survive(|scene| {
        let (controller, [other, _]) = roles(scene);
        vec![(controller, other), (other, controller)]
    });
}

#[test]
fn two_followers_that_do_not_hear_one_another_in_either_direction_are_lived_with() {
    survive(|scene| {
        let (_, [one, other]) = roles(scene);
        vec![(one, other), (other, one)]
    });
}
