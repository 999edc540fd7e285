//! All nodes lose power at once.

use klamm_faults::{Scene, lose_power, on_disks};
use klamm_testbed::{ClusterSetup, Disk, Flavour};

use crate::LOAD;
use crate::report::{Column, seconds};

pub(crate) fn measure(flavour: Flavour, column: &mut Column) {
    let disks: [Disk; 3] = std::array::from_fn(|_| Disk::new());
    let cluster = on_disks(ClusterSetup::of(&[flavour; 3]), &disks).start();
    let mut scene = Scene::begin(cluster, &[1, 2, 3], LOAD);
    // What is lost shall be records, and not the cluster itself.
    for disk in &disks {
        disk.sync();
    }
    scene.until_steady();
    let whole = lose_power(&mut scene, &disks);
    column.add("restart of all three until every ISR is full", seconds(&[whole]));
    let (cluster, history) = scene.finish();
    column.judge("power loss of all three nodes", "", &history);
    // Before the disks it lives on.
    drop(cluster);
}
