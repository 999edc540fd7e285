//! A panic under the lock of a partition: its log is neither served any more nor marked as cleanly closed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use klamm_log::disk::MemoryDisk;
use klamm_log::log::Log;

use super::LogManager;
use super::lacking::{append, lead, offsets, start, until};

fn was_left_in_order(store: &LogManager) -> bool {
    store.in_use().all(|(_, directory)| directory.was_left_in_order())
}

#[test]
fn what_a_panic_has_left_half_changed_stops_the_node_and_is_recovered_by_the_next_start() {
    for breaks in [false, true] {
        let disk = MemoryDisk::default();
        let store = start(&disk);
        let partition = lead(&store);
        append(&partition).unwrap();
        until("the flush", || offsets(&partition) == (1, 1, 1));
        if breaks {
            let change = |_: &mut Log| panic!("a rule of the log is broken");
            let broken = catch_unwind(AssertUnwindSafe(|| partition.with_log(change)));
            assert!(broken.is_err());
            let served = catch_unwind(AssertUnwindSafe(|| partition.view()));
            assert!(served.is_err(), "nobody sees it");
        }
        assert_eq!(store.node_failed().is_cancelled(), breaks);
        store.close(&[Arc::clone(&partition)], Some(5));
        drop((partition, store));
        let store = start(&disk);
        assert_eq!(was_left_in_order(&store), !breaks);
        assert_eq!(offsets(&lead(&store)).2, 1, "the record is there");
    }
}
