//! Random nodes are killed and restarted, one every ten seconds.

use std::time::{Duration, Instant};

use klamm_testbed::{Flavour, within};

use crate::faults::scene;
use crate::random::Random;
use crate::report::Column;

const INTERVAL: Duration = Duration::from_secs(10);

pub(crate) fn measure(flavour: Flavour, length: Duration, seed: u64, column: &mut Column) {
    let mut scene = scene(flavour);
    let mut random = Random::seeded(seed);
    let end = Instant::now() + length;
    let mut kills = 0;
    while Instant::now() < end {
        let victim = random.pick(&scene.cluster().ids());
        scene.cluster_mut().kill(victim);
        scene.cluster_mut().spawn(victim);
        kills += 1;
        // Nothing is awaited: the next kill comes whether or not this one is overcome.
        within(INTERVAL, || false);
    }
    scene.until_steady();
    scene.cluster().until_whole();
    let (cluster, history) = scene.finish();
    column.judge("kill -9 and restart every 10 s", &format!("{kills} kills: "), &history);
    drop(cluster);
}
