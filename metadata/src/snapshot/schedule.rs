//! When the next snapshot of the metadata log is due (Kafka: `SnapshotGenerator`).

/// The limits of the configuration, and what was there when the last snapshot was taken.
#[derive(Debug)]
pub struct SnapshotSchedule {
    max_bytes: u64,
    max_interval_ms: i64,
    bytes_at_last: u64,
    taken_at_ms: i64,
}

impl SnapshotSchedule {
    /// A schedule that counts from a log of `log_bytes` at the time `now_ms`. `max_bytes` is
    /// `metadata.log.max.record.bytes.between.snapshots`; `max_interval_ms` is `metadata.log.max.snapshot.interval.ms`,
    /// 0 for no limit.
    pub fn new(max_bytes: i64, max_interval_ms: i64, log_bytes: u64, now_ms: i64) -> Self {
        Self {
            max_bytes: u64::try_from(max_bytes).unwrap_or(u64::MAX),
            max_interval_ms,
            bytes_at_last: log_bytes,
            taken_at_ms: now_ms,
        }
    }

    /// Whether a snapshot is due when the log has grown to `log_bytes`. Without new records there
    /// is nothing to take.
    pub fn is_due(&self, log_bytes: u64, now_ms: i64) -> bool {
        let new = log_bytes.saturating_sub(self.bytes_at_last);
        let late = self.max_interval_ms > 0 && now_ms - self.taken_at_ms >= self.max_interval_ms;
        new >= self.max_bytes || (new > 0 && late)
    }

    /// A snapshot was taken when the log had `log_bytes`: both limits count from here.
    pub fn on_taken(&mut self, log_bytes: u64, now_ms: i64) {
        self.bytes_at_last = log_bytes;
        self.taken_at_ms = now_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_by_size_or_by_time_but_never_without_anything_new() {
        let mut schedule = SnapshotSchedule::new(1000, 60_000, 500, 0);
        assert!(!schedule.is_due(500, 100_000));
        assert!(schedule.is_due(501, 60_000));
        assert!(!schedule.is_due(1499, 1));
        assert!(schedule.is_due(1500, 1));
        schedule.on_taken(1500, 1);
        assert!(!schedule.is_due(1501, 2));
    }
}
