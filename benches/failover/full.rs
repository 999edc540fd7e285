//! The disk of one node, its metadata log on it, fills to the last byte: for how long is nothing acknowledged, and how long
//! after there is room again is every replica in sync?

use std::time::Duration;

use klamm_faults::{Scene, Stalls};
use klamm_testbed::{ClusterSetup, Disk, Flavour, within};

use crate::LOAD;
use crate::faults::{NODES, settle, victim};
use crate::report::{Column, seconds, stalls};

/// How long the disk stays full.
const FULL: Duration = Duration::from_secs(30);

pub(crate) fn measure(flavour: Flavour, repetitions: usize, column: &mut Column) {
    let disks = NODES.map(|id| (id, Disk::new()));
    let setup = disks.iter().fold(ClusterSetup::of(&[flavour; 3]), |setup, (id, disk)| {
        setup.on_disk(*id, disk.directory())
    });
    let mut scene = Scene::begin(setup.start(), &NODES, LOAD);
    for of_controller in [false, true] {
        let (mut stalled, mut caught_up): (Vec<Stalls>, Vec<Duration>) = Default::default();
        for _ in 0..repetitions {
            let full = victim(&scene, of_controller);
            let (_, disk) = disks.iter().find(|(id, _)| *id == full).expect("each node has one");
            stalled.push(scene.measure(full, |_, _| {
                disk.fill();
                within(FULL, || false);
            }));
            disk.give_room();
            if flavour == Flavour::Kafka {
                // It has ended, or serves nothing from this directory before its next start.
                scene.cluster_mut().kill(full);
                scene.cluster_mut().spawn(full);
            }
            caught_up.push(scene.cluster().until_whole());
            settle(&scene);
        }
        let row = match of_controller {
            false => "the disk of a node that is not the controller is full, 30 s",
            true => "the disk of the active controller is full, 30 s",
        };
        eprintln!("  {row}: {stalled:?}, {caught_up:?}");
        let caught_up = seconds(&caught_up);
        column.add(row, format!("{}, every ISR full {caught_up} after", stalls(&stalled)));
    }
    let (cluster, history) = scene.finish();
    column.judge("the history of all these full disks", "", &history);
    drop(cluster);
}
