//! One node fails: for how long is nothing acknowledged?

use std::time::Duration;

use klamm_faults::{Scene, Stalls};
use klamm_testbed::{Cluster, ClusterSetup, Flavour};

use crate::LOAD;
use crate::report::{Column, seconds, stalls};

pub(crate) const NODES: [i32; 3] = [1, 2, 3];

/// A cluster of three, as the programs come.
pub(crate) fn scene(flavour: Flavour) -> Scene {
    Scene::begin(ClusterSetup::of(&[flavour; 3]).start(), &NODES, LOAD)
}

pub(crate) fn measure(flavour: Flavour, repetitions: usize, column: &mut Column) {
    let mut scene = scene(flavour);
    let mut caught_up = Vec::new();
    let mut kill = |scene: &mut Scene, of_controller: bool| {
        let victim = victim(scene, of_controller);
        let stalls = scene.measure(victim, Cluster::kill);
        scene.cluster_mut().spawn(victim);
        caught_up.push(scene.cluster().until_whole());
        settle(scene);
        stalls
    };
    let mut repeat = |fault: &mut dyn FnMut(&mut Scene) -> Stalls| -> String {
        let measured: Vec<Stalls> = (0..repetitions).map(|_| fault(&mut scene)).collect();
        stalls(&measured)
    };
    column.add(
        "kill -9 of a node that is not the controller",
        repeat(&mut |scene| kill(scene, false)),
    );
    column.add("kill -9 of the active controller", repeat(&mut |scene| kill(scene, true)));
    column.add("SIGSTOP of a leader", repeat(&mut freeze));
    column.add("SIGTERM", repeat(&mut terminate));
    column.add("restart after kill -9 until every ISR is full", seconds(&caught_up));
    let (cluster, history) = scene.finish();
    column.judge("the history of all these", "", &history);
    drop(cluster);
}

pub(crate) fn victim(scene: &Scene, of_controller: bool) -> i32 {
    let active = scene.cluster().controller();
    let mut nodes = NODES.into_iter();
    nodes.find(|id| (*id == active) == of_controller).expect("one of three is not the controller")
}

fn freeze(scene: &mut Scene) -> Stalls {
    let victim = victim(scene, false);
    let stalls = scene.measure(victim, Cluster::pause);
    scene.cluster_mut().resume(victim);
    settle(scene);
    // A broker that was only slow is given more patience the next time, as long as it lives.
    scene.cluster_mut().stop(victim);
    scene.cluster_mut().spawn(victim);
    settle(scene);
    stalls
}

fn terminate(scene: &mut Scene) -> Stalls {
    let victim = victim(scene, false);
    let stalls = scene.measure(victim, |cluster, id| {
        cluster.stop(id);
    });
    scene.cluster_mut().spawn(victim);
    settle(scene);
    stalls
}

/// Every fault begins in the same state: all replicas in sync, each node leading its share.
pub(crate) fn settle(scene: &Scene) {
    scene.cluster().until_whole();
    let elect = "kafka-leader-election --election-type preferred --all-topic-partitions";
    scene.cluster().tool(elect).limit(Duration::from_secs(120)).ok();
    scene.cluster().until_whole();
    scene.until_steady();
}
