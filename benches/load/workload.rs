//! The kinds of load, and how one of them meets one broker: prepared once, run several times, cleaned up.

mod catch_up;
mod consumer;
mod produce;
mod producer;
mod tail;

use std::time::Duration;

use crate::broker::Broker;
use crate::measurement::Sample;

pub(crate) use catch_up::CatchUpLoad;
pub(crate) use produce::ProduceLoad;
pub(crate) use tail::TailLoad;

/// Before the first run, whatever the scale, so that the JVM has compiled what it runs often.
const WARM_UP_LIMIT: Duration = Duration::from_secs(5);

/// What is done to a broker.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load {
    Produce(ProduceLoad),
    CatchUp(CatchUpLoad),
    Tail(TailLoad),
}

/// A load and the broker that it was prepared for.
pub(crate) trait Session {
    /// Applies the load once, warmed up before.
    fn run(&mut self, broker: &Broker) -> Sample;

    /// Removes what it left in the broker.
    fn finish(self: Box<Self>, broker: &Broker);
}

impl Load {
    /// Makes ready what is not to be measured. `scale` is a factor on the size of the load.
    pub(crate) fn prepare(&self, broker: &Broker, name: &str, scale: f64) -> Box<dyn Session> {
        match self {
            Self::Produce(load) => Box::new(load.prepare(broker, name, scale)),
            Self::CatchUp(load) => Box::new(load.prepare(broker, name, scale)),
            Self::Tail(load) => Box::new(load.prepare(broker, name, scale)),
        }
    }
}

/// A count times the scale, but at least `least`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive count times a positive factor, far below 2^53"
)]
fn scaled(count: u64, scale: f64, least: u64) -> u64 {
    ((count as f64 * scale) as u64).max(least)
}
