//! One scene at a time: a stall that another test's load causes is not the cluster's.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_faults::{Client, LoadSetup, Scene};
use klamm_testbed::{Cluster, ClusterSetup};

static MACHINE: Mutex<()> = Mutex::new(());

/// Six partitions, 100 records a second each.
pub(crate) const LOAD: LoadSetup = LoadSetup {
    client: Client::Librdkafka,
    partitions: 6,
    records_per_second_and_partition: 100,
    request_timeout: Duration::from_secs(3),
};

/// The machine for one test alone, as long as the value lives.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Three nodes of the broker under test, under load.
pub(crate) fn three_nodes() -> Scene {
    scene(ClusterSetup::under_test().start())
}

/// A running cluster of nodes 1, 2 and 3 under load.
pub(crate) fn scene(cluster: Cluster) -> Scene {
    Scene::begin(cluster, &[1, 2, 3], LOAD)
}

/// A node that is, or is not, the active controller.
pub(crate) fn victim(scene: &Scene, controller: bool) -> i32 {
    let active = scene.cluster().controller();
    let mut ids = scene.cluster().ids().into_iter();
    ids.find(|id| (*id == active) == controller).expect("there are three nodes")
}
