//! For how long a fault may stall writes, on a machine that others use too, and with librdkafka, which needs a second or more to
//! find a new leader where Apache Kafka's producer needs a tenth (`cargo bench --bench failover` measures that). Still far from
//! Apache Kafka's figures, which stand beside them for the oracle run.

use std::time::Duration;

use klamm_faults::Stalls;
use klamm_testbed::Flavour;

/// What one kind of fault may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    klamm_ms: (u64, u64),
    kafka_ms: (u64, u64),
}

/// SIGKILL of a node that is not the active controller.
pub(crate) const KILLED_BROKER: Limit =
    Limit { klamm_ms: (3_000, 2_000), kafka_ms: (14_000, 14_000) };
/// SIGKILL of the active controller.
pub(crate) const KILLED_CONTROLLER: Limit =
    Limit { klamm_ms: (4_000, 2_500), kafka_ms: (18_000, 18_000) };
/// SIGSTOP. What the frozen node led waits for the client's request timeout, three seconds in these tests.
pub(crate) const FROZEN: Limit = Limit { klamm_ms: (6_000, 3_000), kafka_ms: (18_000, 14_000) };
/// SIGTERM.
pub(crate) const TERMINATED: Limit = Limit { klamm_ms: (600, 600), kafka_ms: (3_000, 3_000) };

/// From the start of a killed node until every ISR is full.
pub(crate) fn catch_up() -> Duration {
    Duration::from_millis(match Flavour::under_test() {
        Flavour::Klamm => 6_000,
        Flavour::Kafka => 60_000,
    })
}

impl Limit {
    /// # Panics
    /// When a stall was longer.
    #[track_caller]
    pub(crate) fn check(self, stalls: Stalls) {
        let (led, others) = match Flavour::under_test() {
            Flavour::Klamm => self.klamm_ms,
            Flavour::Kafka => self.kafka_ms,
        };
        eprintln!("led {:?}, others {:?}", stalls.led, stalls.others);
        assert!(
            stalls.led <= Duration::from_millis(led)
                && stalls.others <= Duration::from_millis(others),
            "{stalls:?} is more than {led} and {others} ms"
        );
    }
}
