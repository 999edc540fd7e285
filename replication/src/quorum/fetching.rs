//! The follower: handles the answer to a fetch. (Kafka: `handleFetchResponse`, `appendAsFollower`.)

use super::message::{FetchBody, FetchResponse, FetchedBatch};
use super::role::Role;
use super::{Anomaly, AppendBatch, Effect, Quorum};
use crate::{OffsetAndEpoch, divergence};
use klamm_protocol::ids::Offset;

impl Quorum {
    /// Returns whether the answer was valid.
    pub(super) fn on_fetch_response(&mut self, now_ms: i64, response: FetchResponse) -> bool {
        if !self.on_leader_info(now_ms, response.error, &response.leader) {
            return false;
        }
        if !matches!(self.role, Role::Follower(_)) {
            return false;
        }
        let taken = match response.body {
            FetchBody::Records(batches) => {
                let taken = self.append_fetched(batches);
                if let Some(high_watermark) = response.high_watermark {
                    self.commit(high_watermark.min(self.log.end_offset));
                }
                taken
            }
            FetchBody::Diverging(end) => self.truncate_to_divergence(end),
            FetchBody::Snapshot(id) => self.start_fetching_snapshot(id),
        };
        if !taken {
            self.pause_fetching_from_leader(now_ms);
            return false;
        }
        let caught_up = |end: Offset| self.log.end_offset >= end;
        if response.high_watermark.is_some_and(caught_up) {
            self.must_catch_up = false;
        }
        self.on_contact_with_leader(now_ms);
        true
    }

    /// The leader's answer contradicts this node's state: pauses fetching from it, because a retry would likely get the
    /// same answer.
    pub(super) fn pause_fetching_from_leader(&mut self, now_ms: i64) {
        let leader_id = self.election.leader_id.expect("a follower has a leader");
        self.requests.pause(leader_id, now_ms);
    }

    pub(super) fn on_contact_with_leader(&mut self, now_ms: i64) {
        let fetch_deadline_ms = self.fetch_deadline_ms(now_ms);
        if let Role::Follower(follower) = &mut self.role {
            follower.fetch_deadline_ms = fetch_deadline_ms;
            follower.has_fetched_from_leader = true;
        }
    }

    /// Appends the batches that continue the log, byte for byte, up to the first one that does not.
    fn append_fetched(&mut self, batches: Vec<FetchedBatch>) -> bool {
        let base_offset = self.log.end_offset;
        let mut appended = Vec::with_capacity(batches.len());
        let mut unexpected = None;
        for batch in batches {
            if !self.continues_log(&batch) {
                unexpected = Some(Anomaly::UnexpectedBatch {
                    base_offset: batch.base_offset,
                    epoch: batch.epoch,
                    expected_offset: self.log.end_offset,
                });
                break;
            }
            self.log.append(batch.epoch, batch.next_offset);
            for (offset, change) in batch.changes {
                self.membership.apply(offset, change);
            }
            appended.push(batch.bytes);
        }
        if !appended.is_empty() {
            let epoch = self.log.last_epoch();
            let batch = AppendBatch::Fetched(appended);
            self.effects.push(Effect::Append { base_offset, epoch, batch });
        }
        let clean = unexpected.is_none();
        self.effects.extend(unexpected.map(Effect::Anomaly));
        clean
    }

    fn continues_log(&self, batch: &FetchedBatch) -> bool {
        batch.base_offset == self.log.end_offset
            && batch.next_offset > batch.base_offset
            && (self.log.last_epoch()..=self.election.epoch).contains(&batch.epoch)
    }

    /// Truncates the log to the end of the common epoch. Committed records are never truncated: such an answer is
    /// refused, also if this node knows the committed offset from before a restart.
    fn truncate_to_divergence(&mut self, diverging: OffsetAndEpoch) -> bool {
        let end_offset =
            divergence::truncation_offset(&self.log.epochs, self.log.end_offset, diverging);
        let high_watermark = self.log.known_committed();
        if end_offset < high_watermark {
            let anomaly = Anomaly::TruncationBelowHighWatermark { end_offset, high_watermark };
            self.effects.push(Effect::Anomaly(anomaly));
            return false;
        }
        self.truncate(end_offset);
        true
    }

    fn truncate(&mut self, end_offset: Offset) {
        if end_offset == self.log.end_offset {
            return;
        }
        self.log.truncate(end_offset);
        self.membership.truncate_from_end(end_offset);
        self.effects.push(Effect::Truncate { end_offset });
    }
}
