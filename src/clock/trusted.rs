//! The retention clock: the wall clock as far as it is trusted for the age of stored data.
//!
//! A clock may be set wrong by days, and data deleted for its age is lost. So a step ahead counts only after the wall
//! clock has kept it for [`TRUST_AFTER`], measured by the steady clock; until then this clock continues without the step.
//! A step back is followed at once: it makes all data younger. Pure: readings come in, steps come out.
//! (docs/decisions/0007)

use std::time::Duration;

/// How long the wall clock has to stay ahead before it is trusted.
pub(super) const TRUST_AFTER: Duration = Duration::from_secs(3_600);
/// Shorter steps, in either direction, are normal corrections (NTP) and are followed at once.
const TOLERANCE_MICROS: i64 = 60 * 1_000_000;

/// The last reading.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trusted {
    wall: i64,
    trusted: i64,
    /// For how long the wall clock has been ahead; unused while it is not.
    ahead_for: i64,
}

/// A step of the wall clock to report to the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The wall clock was set ahead by so many microseconds, or back if negative.
    Set { by: i64 },
    /// The wall clock has been ahead by so many microseconds for [`TRUST_AFTER`], and is trusted now.
    Accepted { by: i64 },
}

impl Trusted {
    /// The first reading of a process. `last_seen` is the wall clock at the last run on the same data, if known: a long
    /// gap since then is not trusted at once either.
    pub(super) fn new(wall: i64, last_seen: Option<i64>) -> Self {
        let missing = last_seen.filter(|seen| wall.saturating_sub(*seen) > in_micros(TRUST_AFTER));
        Self { wall, trusted: missing.unwrap_or(wall), ahead_for: 0 }
    }

    pub(super) fn micros(&self) -> i64 {
        self.trusted
    }

    /// How far the wall clock is ahead of the trusted time.
    pub(super) fn untrusted(&self) -> i64 {
        self.wall - self.trusted
    }

    /// Takes a reading, in microseconds: `elapsed` has passed by the monotonic clock since the last one, and the wall
    /// clock reads `wall`.
    pub(super) fn on_reading(&mut self, elapsed: i64, wall: i64) -> Option<Step> {
        let set_by = wall - (self.wall + elapsed);
        let was_set = set_by.abs() > TOLERANCE_MICROS;
        let unset = self.trusted + elapsed;
        let ahead = wall - unset;
        self.wall = wall;
        if ahead <= TOLERANCE_MICROS {
            self.trusted = wall;
            return was_set.then_some(Step::Set { by: set_by });
        }
        self.trusted = unset;
        self.ahead_for = if was_set && set_by > 0 { 0 } else { self.ahead_for + elapsed };
        if was_set {
            return Some(Step::Set { by: set_by });
        }
        if self.ahead_for < in_micros(TRUST_AFTER) {
            return None;
        }
        self.trusted = wall;
        Some(Step::Accepted { by: ahead })
    }
}

fn in_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).expect("an hour fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const HOUR: i64 = 3_600 * SECOND;
    const DAY: i64 = 24 * HOUR;

    /// A machine whose wall clock the tests set.
    struct Machine {
        clock: Trusted,
        wall: i64,
        steps: Vec<Step>,
    }

    impl Machine {
        fn new() -> Self {
            Self { clock: Trusted::new(100 * DAY, None), wall: 100 * DAY, steps: Vec::new() }
        }

        fn set(&mut self, by: i64) {
            self.wall += by;
        }

        /// Lets time pass, with a reading every ten seconds.
        fn pass(&mut self, time: i64) {
            for _ in 0..time / (10 * SECOND) {
                self.wall += 10 * SECOND;
                self.steps.extend(self.clock.on_reading(10 * SECOND, self.wall));
            }
        }

        fn trusted(&self) -> i64 {
            self.clock.micros() - 100 * DAY
        }
    }

    #[test]
    fn a_clock_that_nobody_sets_is_followed() {
        let mut machine = Machine::new();
        machine.pass(HOUR);
        machine.set(SECOND);
        machine.pass(HOUR);
        machine.set(-SECOND);
        machine.pass(HOUR);
        assert_eq!((machine.trusted(), &*machine.steps), (3 * HOUR, &[][..]));
    }

    #[test]
    fn a_step_ahead_is_told_at_once_and_believed_after_an_hour() {
        let mut machine = Machine::new();
        machine.pass(HOUR);
        machine.set(10 * DAY);
        machine.pass(HOUR);
        assert_eq!(machine.trusted(), 2 * HOUR);
        assert_eq!(machine.steps, [Step::Set { by: 10 * DAY }]);
        machine.pass(10 * SECOND);
        assert_eq!(machine.trusted(), 10 * DAY + 2 * HOUR + 10 * SECOND);
        assert_eq!(machine.steps[1..], [Step::Accepted { by: 10 * DAY }]);
    }

    #[test]
    fn a_step_ahead_that_is_taken_back_was_never_believed() {
        let mut machine = Machine::new();
        for _ in 0..5 {
            machine.set(10 * DAY);
            machine.pass(HOUR - 20 * SECOND);
            machine.set(-10 * DAY);
            machine.pass(HOUR);
        }
        assert_eq!(machine.trusted(), 10 * HOUR - 100 * SECOND);
        let told = [Step::Set { by: 10 * DAY }, Step::Set { by: -10 * DAY }];
        assert_eq!(machine.steps, told.repeat(5));
    }

    #[test]
    fn a_step_back_is_followed_and_the_way_home_is_a_step_ahead() {
        let mut machine = Machine::new();
        machine.set(-10 * DAY);
        machine.pass(HOUR);
        assert_eq!(machine.trusted(), HOUR - 10 * DAY);
        machine.set(10 * DAY);
        machine.pass(HOUR);
        assert_eq!(machine.trusted(), 2 * HOUR - 10 * DAY);
        machine.pass(HOUR);
        assert_eq!(machine.trusted(), 3 * HOUR);
    }

    #[test]
    fn each_step_ahead_has_to_wait_and_half_a_step_back_does_not_begin_the_wait_anew() {
        let mut machine = Machine::new();
        machine.set(DAY);
        machine.pass(HOUR - 20 * SECOND);
        machine.set(DAY);
        machine.pass(HOUR);
        assert_eq!(machine.trusted(), 2 * HOUR - 20 * SECOND);
        machine.set(-HOUR);
        machine.pass(20 * SECOND);
        assert_eq!(machine.clock.untrusted(), 0);
    }

    #[test]
    fn days_between_two_processes_are_not_believed_at_once_either() {
        let mut clock = Trusted::new(20 * DAY, Some(10 * DAY));
        assert_eq!((clock.micros(), clock.untrusted()), (10 * DAY, 10 * DAY));
        assert_eq!(clock.on_reading(HOUR - 1, 20 * DAY + HOUR - 1), None);
        assert_eq!(clock.micros(), 10 * DAY + HOUR - 1);
        let believed = Some(Step::Accepted { by: 10 * DAY });
        assert_eq!(clock.on_reading(1, 20 * DAY + HOUR), believed);
        assert_eq!(Trusted::new(DAY, Some(DAY - HOUR)).untrusted(), 0);
        assert_eq!(Trusted::new(DAY, Some(20 * DAY)).micros(), DAY, "a clock behind is followed");
    }
}
