//! Logs that are not synced before acknowledgement are synced by time.

use std::fs;
use std::time::Duration;

use klamm_testbed::{Setup, until};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_log_is_synced_when_its_time_has_come() {
    let broker = Setup::under_test()
        .set("log.flush.before.ack", "false")
        .set("log.flush.scheduler.interval.ms", "50")
        .set("log.flush.offset.checkpoint.interval.ms", "100")
        .start();
    let by_time = broker.create_topic("by-time", "--partitions 1 --config flush.ms=100");
    let never = broker.create_topic("never", "--partitions 1 --config flush.ms=999999999");
    for topic in [&by_time, &never] {
        broker.produce_lines(topic, &["a", "b"]);
    }
    // A recovery point is an offset up to which the log is synced.
    let checkpoint = broker.data().join("recovery-point-offset-checkpoint");
    let written = until("the recovery point to move", SOON, || {
        let written = fs::read_to_string(&checkpoint).unwrap_or_default();
        written.contains(&format!("{by_time} 0 2")).then_some(written)
    });
    assert!(written.contains(&format!("{never} 0 0")), "{written}");
}
