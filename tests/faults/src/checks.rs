//! The checks that a history has to pass. Pure, one pass each (and a sort where order matters).
//!
//! A send that failed, or that was never answered, may have been stored or not: it is never evidence of a loss.

use std::collections::{BTreeMap, BTreeSet};

use crate::anomaly::Anomaly;
use crate::history::{History, RecordId, Stored};

impl History {
    /// Everything wrong with it.
    pub fn anomalies(&self) -> Vec<Anomaly> {
        const CHECKS: [fn(&History) -> Vec<Anomaly>; 8] = [
            lost,
            duplicated,
            reordered,
            phantoms,
            replaced,
            acknowledged_backwards,
            skipped_or_repeated,
            undelivered,
        ];
        CHECKS.iter().flat_map(|check| check(self)).collect()
    }
}

/// Every stored record that a producer sent, with its offset.
fn stored(history: &History) -> impl Iterator<Item = (RecordId, i64)> {
    history.stored.iter().flat_map(|(partition, records)| {
        records.iter().filter_map(|record| {
            Some((history.was_sent(*partition, &record.value)?, record.offset))
        })
    })
}

fn lost(history: &History) -> Vec<Anomaly> {
    let stored: BTreeSet<RecordId> = stored(history).map(|(id, _)| id).collect();
    let acknowledged: BTreeSet<RecordId> =
        history.acknowledged.iter().map(|acknowledged| acknowledged.id).collect();
    acknowledged.difference(&stored).map(|id| Anomaly::Lost(*id)).collect()
}

fn duplicated(history: &History) -> Vec<Anomaly> {
    let mut places: BTreeMap<RecordId, Vec<i64>> = BTreeMap::new();
    for (id, offset) in stored(history) {
        places.entry(id).or_default().push(offset);
    }
    places.retain(|id, offsets| offsets.len() > 1 && !history.sent_twice.contains(id));
    places.into_iter().map(|(id, offsets)| Anomaly::Duplicated { id, offsets }).collect()
}

/// Repetitions are [`duplicated`]'s affair.
fn reordered(history: &History) -> Vec<Anomaly> {
    let mut seen = BTreeSet::new();
    let mut latest: BTreeMap<i32, RecordId> = BTreeMap::new();
    let mut found = Vec::new();
    for (id, offset) in stored(history).filter(|(id, _)| seen.insert(*id)) {
        let latest = latest.entry(id.partition).or_insert(id);
        if id < *latest {
            found.push(Anomaly::Reordered { id, offset, after: *latest });
        }
        *latest = id.max(*latest);
    }
    found
}

fn phantoms(history: &History) -> Vec<Anomaly> {
    let read = history.stored.iter().flat_map(|(partition, records)| {
        records.iter().map(|Stored { offset, value }| (*partition, *offset, value))
    });
    let polled =
        history.polled.iter().map(|polled| (polled.partition, polled.offset, &polled.value));
    read.chain(polled)
        .filter(|(partition, _, value)| history.was_sent(*partition, value).is_none())
        .map(|(partition, offset, value)| Anomaly::Phantom {
            partition,
            offset,
            value: value.clone(),
        })
        .collect()
}

fn replaced(history: &History) -> Vec<Anomaly> {
    let now: BTreeMap<(i32, i64), &str> = history
        .stored
        .iter()
        .flat_map(|(partition, records)| {
            records.iter().map(|record| ((*partition, record.offset), record.value.as_str()))
        })
        .collect();
    let acknowledged =
        history.acknowledged.iter().filter_map(|record| Some((record.id, record.offset?)));
    let polled = history.polled.iter().filter_map(|polled| {
        Some((history.was_sent(polled.partition, &polled.value)?, polled.offset))
    });
    let mut found = Vec::new();
    for (id, offset) in acknowledged.chain(polled) {
        let now = now.get(&(id.partition, offset)).copied();
        if now != Some(id.to_string().as_str()) {
            found.push(Anomaly::Replaced { id, offset, now: now.map(str::to_owned) });
        }
    }
    found
}

fn acknowledged_backwards(history: &History) -> Vec<Anomaly> {
    let mut sends: Vec<(RecordId, i64)> = history
        .acknowledged
        .iter()
        .filter_map(|record| Some((record.id, record.offset?)))
        .collect();
    sends.sort_unstable();
    let backwards = sends.windows(2).filter_map(|pair| {
        let [(before, after), (id, offset)] = *pair else { return None };
        let same_producer = before.partition == id.partition && before != id;
        (same_producer && offset <= after).then_some(Anomaly::AcknowledgedBackwards {
            id,
            offset,
            after,
        })
    });
    backwards.collect()
}

/// A gap is a skip only if something is stored in it: control records and compaction leave gaps by right.
fn skipped_or_repeated(history: &History) -> Vec<Anomaly> {
    let mut last: BTreeMap<((usize, usize), i32), i64> = BTreeMap::new();
    let mut found = Vec::new();
    for polled in &history.polled {
        let partition = polled.partition;
        let to = polled.offset;
        let Some(from) = last.insert((polled.session, partition), to) else { continue };
        if to <= from {
            found.push(Anomaly::NonMonotonic { partition, from, to });
        } else if holds_any(history, partition, from + 1, to) {
            found.push(Anomaly::Skipped { partition, from, to });
        }
    }
    found
}

/// Whether the partition holds a record at `begin` or later, and before `end`.
fn holds_any(history: &History, partition: i32, begin: i64, end: i64) -> bool {
    let Some(records) = history.stored.get(&partition) else { return false };
    let first = records.partition_point(|record| record.offset < begin);
    records.get(first).is_some_and(|record| record.offset < end)
}

/// Only where a group was reading at all.
fn undelivered(history: &History) -> Vec<Anomaly> {
    if history.polled.is_empty() {
        return Vec::new();
    }
    let delivered: BTreeSet<RecordId> = history
        .polled
        .iter()
        .filter_map(|polled| history.was_sent(polled.partition, &polled.value))
        .collect();
    let stored: BTreeSet<RecordId> = stored(history).map(|(id, _)| id).collect();
    stored.difference(&delivered).map(|id| Anomaly::Undelivered(*id)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::history::{Acknowledged, Polled};

    fn id(number: u64) -> RecordId {
        RecordId { partition: 0, number }
    }

    fn acknowledge(number: u64, offset: Option<i64>) -> Acknowledged {
        Acknowledged { id: id(number), offset, at: Duration::from_millis(number) }
    }

    fn poll(session: (usize, usize), offset: i64, value: &str) -> Polled {
        Polled { session, partition: 0, offset, value: value.to_owned() }
    }

    fn store(values: &[(i64, &str)]) -> BTreeMap<i32, Vec<Stored>> {
        let records = values
            .iter()
            .map(|(offset, value)| Stored { offset: *offset, value: (*value).to_owned() });
        BTreeMap::from([(0, records.collect())])
    }

    /// Three records, sent, acknowledged, stored and polled as they should.
    fn good() -> History {
        History {
            sent: BTreeMap::from([(0, 3)]),
            acknowledged: (0..3).zip(0..).map(|(n, at)| acknowledge(n, Some(at))).collect(),
            failed: Vec::new(),
            stored: store(&[(0, "0:0"), (1, "0:1"), (2, "0:2")]),
            polled: (0..3).map(|n| poll((0, 1), n, &format!("0:{n}"))).collect(),
            sent_twice: BTreeSet::new(),
        }
    }

    #[test]
    fn a_good_history_passes() {
        assert_eq!(good().anomalies(), []);
    }

    #[test]
    fn what_was_acknowledged_and_is_not_stored_is_lost() {
        let mut history = History { polled: Vec::new(), ..good() };
        history.stored = store(&[(0, "0:0"), (1, "0:1")]);
        assert_eq!(lost(&history), [Anomaly::Lost(id(2))]);
        // Without an acknowledgement nothing was promised.
        history.acknowledged.pop();
        assert_eq!(history.anomalies(), []);
    }

    #[test]
    fn a_failed_send_may_be_stored_or_not() {
        let mut history = History { failed: vec![id(1)], ..good() };
        history.acknowledged.remove(1);
        assert_eq!(history.anomalies(), []);
        history.stored = store(&[(0, "0:0"), (2, "0:2")]);
        history.polled.remove(1);
        assert_eq!(history.anomalies(), []);
    }

    #[test]
    fn what_is_stored_twice_is_duplicated_and_not_reordered() {
        let stored = store(&[(0, "0:0"), (1, "0:1"), (2, "0:2"), (3, "0:1")]);
        let history = History { stored, ..good() };
        assert_eq!(
            history.anomalies(),
            [Anomaly::Duplicated { id: id(1), offsets: vec![1, 3] }],
            "the group was given one of the two"
        );
        let history = History { sent_twice: BTreeSet::from([id(1)]), ..history };
        assert_eq!(history.anomalies(), [], "the producer asked for both");
    }

    #[test]
    fn what_is_stored_behind_a_later_record_is_reordered() {
        let stored = store(&[(0, "0:1"), (1, "0:0"), (2, "0:2")]);
        let history = History { acknowledged: Vec::new(), stored, polled: Vec::new(), ..good() };
        assert_eq!(
            history.anomalies(),
            [Anomaly::Reordered { id: id(0), offset: 1, after: id(1) }]
        );
    }

    #[test]
    fn what_nobody_sent_to_the_partition_is_a_phantom() {
        for value in ["0:3", "1:0", "noise"] {
            let stored = store(&[(0, "0:0"), (1, "0:1"), (2, "0:2"), (3, value)]);
            let history = History { stored, ..good() };
            let phantom = Anomaly::Phantom { partition: 0, offset: 3, value: value.to_owned() };
            assert_eq!(history.anomalies(), [phantom]);
        }
        let mut history = good();
        history.polled.push(poll((0, 1), 3, "noise"));
        assert_eq!(phantoms(&history).len(), 1);
    }

    #[test]
    fn what_was_acknowledged_or_polled_stays_where_it_was() {
        let mut history = History { polled: Vec::new(), ..good() };
        history.acknowledged[2].offset = Some(7);
        assert_eq!(replaced(&history), [Anomaly::Replaced { id: id(2), offset: 7, now: None }]);
        let mut history = good();
        history.polled[1].value = "0:0".to_owned();
        let now = Some("0:1".to_owned());
        assert_eq!(replaced(&history), [Anomaly::Replaced { id: id(0), offset: 1, now }]);
    }

    #[test]
    fn an_acknowledgement_without_an_offset_tells_only_that_the_record_is_stored() {
        let mut history = good();
        history.acknowledged[1].offset = None;
        assert_eq!(history.anomalies(), []);
    }

    #[test]
    fn later_records_are_acknowledged_at_greater_offsets() {
        let mut history = good();
        history.acknowledged[2].offset = Some(1);
        assert_eq!(
            acknowledged_backwards(&history),
            [Anomaly::AcknowledgedBackwards { id: id(2), offset: 1, after: 1 }]
        );
    }

    #[test]
    fn a_member_that_jumps_over_a_stored_record_skipped_it() {
        let mut history = good();
        let missed = history.polled.remove(1);
        assert_eq!(
            skipped_or_repeated(&history),
            [Anomaly::Skipped { partition: 0, from: 0, to: 2 }]
        );
        // Another member got it before: still a skip. Nothing stored there: no skip.
        history.polled.insert(0, Polled { session: (1, 1), ..missed });
        assert_eq!(skipped_or_repeated(&history).len(), 1);
        history.stored = store(&[(0, "0:0"), (2, "0:2")]);
        assert_eq!(skipped_or_repeated(&history), []);
    }

    #[test]
    fn a_member_goes_back_only_with_a_new_assignment() {
        let mut history = good();
        history.polled.push(poll((0, 2), 1, "0:1"));
        history.polled.push(poll((1, 1), 0, "0:0"));
        assert_eq!(history.anomalies(), []);
        history.polled.push(poll((0, 2), 1, "0:1"));
        assert_eq!(history.anomalies(), [Anomaly::NonMonotonic { partition: 0, from: 1, to: 1 }]);
    }

    #[test]
    fn a_group_is_given_everything_that_is_stored() {
        let mut history = good();
        history.polled.pop();
        assert_eq!(history.anomalies(), [Anomaly::Undelivered(id(2))]);
    }
}
