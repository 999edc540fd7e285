//! One direction of one link between two nodes is cut, for every pair: for how long is nothing acknowledged, how many leaders
//! change, and how long after the healing is every replica in sync?

use std::time::Duration;

use klamm_faults::{Scene, Stalls};
use klamm_testbed::{ClusterSetup, Flavour, Network, within};

use crate::LOAD;
use crate::faults::NODES;
use crate::report::{Column, seconds, stalls};

/// How long a link is cut.
const CUT: Duration = Duration::from_secs(20);

pub(crate) fn measure(flavour: Flavour, column: &mut Column) {
    let network = Network::new(3);
    let setup = NODES.iter().fold(ClusterSetup::of(&[flavour; 3]), |setup, id| {
        setup.on_host(*id, &network.address(*id), &network.namespace(*id))
    });
    let mut scene = Scene::begin(setup.start(), &NODES, LOAD);
    let mut between_brokers = Links::default();
    let mut of_controller = Links::default();
    for (from, to) in NODES.iter().flat_map(|from| NODES.map(|to| (*from, to))) {
        if from == to {
            continue;
        }
        let controller = scene.cluster().controller();
        let links = match [from, to].contains(&controller) {
            true => &mut of_controller,
            false => &mut between_brokers,
        };
        links.cut(&mut scene, &network, (from, to));
    }
    between_brokers.report("a link between two brokers, one way, 20 s", column);
    of_controller.report("a link of the active controller, one way, 20 s", column);
    let (cluster, history) = scene.finish();
    column.judge("the history of all these cuts", "", &history);
    drop(cluster);
}

/// What the cuts of some links cost.
#[derive(Debug, Default)]
struct Links {
    stalls: Vec<Stalls>,
    leader_changes: Vec<i32>,
    caught_up: Vec<Duration>,
}

impl Links {
    fn cut(&mut self, scene: &mut Scene, network: &Network, (from, to): (i32, i32)) {
        let before = scene.leader_epochs();
        self.stalls.push(scene.measure(from, |_, _| {
            network.cut(from, to);
            within(CUT, || false);
            network.heal();
        }));
        self.caught_up.push(scene.cluster().until_whole());
        self.leader_changes.push(scene.leader_epochs() - before);
        let last = (self.stalls.last(), self.leader_changes.last(), self.caught_up.last());
        eprintln!("  {from} -> {to} (controller {}): {last:?}", scene.cluster().controller());
    }

    fn report(&self, row: &'static str, column: &mut Column) {
        let (changes, caught_up) = (&self.leader_changes, seconds(&self.caught_up));
        let stalls = stalls(&self.stalls);
        column.add(
            row,
            format!("{stalls}, {changes:?} leader changes, every ISR full {caught_up} after"),
        );
    }
}
