//! Random faults that are none of a node's death: links that fail one way, pauses, full disks; and deaths.

use std::time::{Duration, Instant};

use klamm_faults::{Scene, Stalls};
use klamm_testbed::{ClusterSetup, Disk, Flavour, Network, within};

use crate::LOAD;
use crate::faults::NODES;
use crate::random::Random;
use crate::report::{Column, seconds};

/// What happens to a node, or to the link from it to another.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Link(Duration),
    Pause(Duration),
    FullDisk(Duration),
    Kill,
}

const FAULTS: [Fault; 8] = [
    Fault::Link(Duration::from_secs(5)),
    Fault::Link(Duration::from_secs(15)),
    Fault::Pause(Duration::from_millis(300)),
    Fault::Pause(Duration::from_millis(1500)),
    Fault::Pause(Duration::from_secs(5)),
    Fault::FullDisk(Duration::from_secs(5)),
    Fault::FullDisk(Duration::from_secs(15)),
    Fault::Kill,
];

pub(crate) fn measure(flavour: Flavour, length: Duration, seed: u64, column: &mut Column) {
    let network = Network::new(3);
    let disks = NODES.map(|id| (id, Disk::new()));
    let setup = disks.iter().fold(ClusterSetup::of(&[flavour; 3]), |setup, (id, disk)| {
        setup
            .on_host(*id, &network.address(*id), &network.namespace(*id))
            .on_disk(*id, disk.directory())
    });
    let mut scene = Scene::begin(setup.start(), &NODES, LOAD);
    let mut random = Random::seeded(seed);
    let (mut longest, mut changes) = (Vec::new(), Vec::new());
    let end = Instant::now() + length;
    while Instant::now() < end {
        let (fault, node) = (random.pick(&FAULTS), random.pick(&NODES));
        let others: Vec<i32> = NODES.into_iter().filter(|id| *id != node).collect();
        let other = random.pick(&others);
        let (_, disk) = disks.iter().find(|(id, _)| *id == node).expect("each node has one");
        let before = scene.leader_epochs();
        let Stalls { led, others } = scene.measure(node, |cluster, node| match fault {
            Fault::Link(time) => {
                network.cut(node, other);
                within(time, || false);
                network.heal();
            }
            Fault::Pause(time) => {
                cluster.pause(node);
                within(time, || false);
                cluster.resume(node);
            }
            Fault::FullDisk(time) => {
                disk.fill();
                within(time, || false);
                disk.give_room();
            }
            Fault::Kill => {
                cluster.kill(node);
                cluster.spawn(node);
            }
        });
        scene.cluster().until_whole();
        let changed = scene.leader_epochs() - before;
        eprintln!(
            "  {fault:?} of {node} (to {other}): {led:?} / {others:?}, {changed} leader changes"
        );
        longest.push(led.max(others));
        changes.push(changed);
    }
    let (cluster, history) = scene.finish();
    let greatest = changes.iter().max().copied().unwrap_or_default();
    let done = format!(
        "{} faults, longest stall of each {}, at most {greatest} leader changes: ",
        longest.len(),
        seconds(&longest)
    );
    column.judge("random one-way links, pauses, full disks and kills", &done, &history);
    drop(cluster);
}
