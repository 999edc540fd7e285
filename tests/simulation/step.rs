//! One step of a node or client: what it is given, and what it leaves for the world to carry out.

use crate::batch::BatchStore;
use crate::message::{Address, Message, Sender};
use crate::observation::Observation;
use crate::plant::Plant;
use crate::random::Random;
use klamm_protocol::time::Now;

/// Wakes its owner up, if that is still in the same life.
#[derive(Debug, Clone)]
pub(crate) struct Alarm<T> {
    pub(crate) delay_ms: i64,
    pub(crate) timer: T,
}

/// The surroundings of a step. `T` is what the owner's timers are told apart by.
#[derive(Debug)]
pub(crate) struct Step<'w, T> {
    /// The owner's clocks.
    pub(crate) now: Now,
    /// The steady one of them.
    pub(crate) now_ms: i64,
    pub(crate) random: &'w mut Random,
    pub(crate) store: &'w mut BatchStore,
    pub(crate) plant: Plant,
    /// While there are faults the power may fail after so many more effects.
    pub(crate) fuse: Option<u32>,
    /// To whom, in which life if that matters, and what.
    pub(crate) sent: Vec<(Address, Option<u64>, Message)>,
    pub(crate) alarms: Vec<Alarm<T>>,
    pub(crate) observed: Vec<Observation>,
}

impl<T> Step<'_, T> {
    pub(crate) fn ask(&mut self, to: Address, message: Message) {
        self.sent.push((to, None, message));
    }

    pub(crate) fn answer(&mut self, to: Sender, message: Message) {
        self.sent.push((to.address, Some(to.incarnation), message));
    }

    /// Sets a timer, by the owner's clock.
    pub(crate) fn after(&mut self, delay_ms: i64, timer: T) {
        self.alarms.push(Alarm { delay_ms, timer });
    }

    pub(crate) fn observe(&mut self, observation: Observation) {
        self.observed.push(observation);
    }

    /// Counts an effect; says whether the power fails right after it.
    pub(crate) fn burn(&mut self) -> bool {
        match &mut self.fuse {
            None => false,
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                *left == 0
            }
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.fuse == Some(0)
    }
}
