//! Snapshots of the metadata log: they move the log's start, and a follower that is too far behind fetches one in
//! chunks (KIP-630).

use super::log_history::Membership;
use super::message::{FetchSnapshotReply, FetchSnapshotRequest, FetchSnapshotResponse};
use super::role::{FetchingSnapshot, Role};
use super::{Anomaly, Effect, Quorum};
use crate::OffsetAndEpoch;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::Offset;

impl Quorum {
    /// The shell has written a snapshot of the committed state up to `id`.
    pub fn on_snapshot_written(&mut self, id: OffsetAndEpoch) {
        assert!(Some(id.offset) <= self.high_watermark, "only what is committed is in a snapshot");
        if self.log.latest_snapshot < Some(id) {
            self.log.latest_snapshot = Some(id);
        }
        self.log.earliest_snapshot = self.log.earliest_snapshot.or(Some(id));
        self.membership.truncate_from_start(id.offset);
    }

    /// The shell has deleted the log below `start_offset`, and the snapshots before `earliest`, which has the deleted
    /// records.
    pub fn on_log_deleted(&mut self, start_offset: Offset, earliest: OffsetAndEpoch) {
        assert!(start_offset <= earliest.offset, "a snapshot covers what is deleted");
        self.log.start_offset = self.log.start_offset.max(start_offset);
        self.log.earliest_snapshot = Some(earliest);
        self.log.epochs.truncate_from_start(start_offset);
        // The deleted records are in the snapshot, which was synced before it was used.
        self.log.flushed_offset = self.log.flushed_offset.max(start_offset);
    }

    /// The state machine has been loaded from the fetched snapshot and a new log starts at its end; `membership` is
    /// from the snapshot's control records.
    pub fn on_snapshot_loaded(
        &mut self,
        now_ms: i64,
        id: OffsetAndEpoch,
        membership: Membership,
    ) -> Vec<Effect> {
        assert_eq!(self.loading_snapshot.take(), Some(id), "the snapshot that was to be loaded");
        self.log.start_at_snapshot(id);
        self.membership = membership;
        self.high_watermark = self.high_watermark.max(Some(id.offset));
        if let Role::Follower(follower) = &mut self.role {
            follower.snapshot = None;
        }
        self.on_contact_with_leader(now_ms);
        self.proceed(now_ms)
    }

    /// Checks a FetchSnapshot request. The shell reads the bytes of the file.
    pub(super) fn on_fetch_snapshot_request(
        &mut self,
        now_ms: i64,
        fetch: &FetchSnapshotRequest,
    ) -> FetchSnapshotReply {
        let error = self.check_leader_request(fetch.current_leader_epoch).err();
        let error = error.or((fetch.position < 0).then_some(ErrorCode::PositionOutOfRange));
        let error =
            error
                .or((fetch.snapshot_id == OffsetAndEpoch::START)
                    .then_some(ErrorCode::SnapshotNotFound));
        if error.is_none() {
            self.count_contact(now_ms, &fetch.replica);
        }
        FetchSnapshotReply {
            error: error.unwrap_or(ErrorCode::None),
            leader: self.leader_info(),
            snapshot_id: fetch.snapshot_id,
            position: fetch.position,
            max_bytes: fetch.max_bytes,
        }
    }

    pub(super) fn start_fetching_snapshot(&mut self, id: OffsetAndEpoch) -> bool {
        let high_watermark = self.log.known_committed();
        if id.offset < high_watermark {
            let end_offset = id.offset;
            let anomaly = Anomaly::TruncationBelowHighWatermark { end_offset, high_watermark };
            self.effects.push(Effect::Anomaly(anomaly));
            return false;
        }
        let behind = Some(id.offset) <= self.high_watermark || id.epoch > self.election.epoch;
        if behind || id.epoch < 0 {
            let anomaly = Anomaly::UnexpectedSnapshotChunk { snapshot_id: id, position: 0 };
            self.effects.push(Effect::Anomaly(anomaly));
            return false;
        }
        if let Role::Follower(follower) = &mut self.role {
            follower.snapshot = Some(FetchingSnapshot { id, position: 0 });
        }
        true
    }

    /// Returns whether the chunk was valid.
    pub(super) fn on_fetch_snapshot_response(
        &mut self,
        now_ms: i64,
        response: FetchSnapshotResponse,
    ) -> bool {
        let gone = response.error == ErrorCode::SnapshotNotFound;
        let error = if gone { ErrorCode::None } else { response.error };
        if !self.on_leader_info(now_ms, error, &response.leader) {
            return false;
        }
        let Role::Follower(follower) = &mut self.role else { return false };
        let Some(fetching) = &mut follower.snapshot else { return false };
        if gone {
            follower.snapshot = None;
            self.on_contact_with_leader(now_ms);
            return true;
        }
        let length = i64::try_from(response.bytes.len()).expect("a response is shorter than 2^63");
        let end = fetching.position + length;
        let expected = response.snapshot_id == fetching.id
            && response.position == fetching.position
            && length > 0
            && end <= response.size;
        if !expected {
            let (snapshot_id, position) = (response.snapshot_id, response.position);
            let anomaly = Anomaly::UnexpectedSnapshotChunk { snapshot_id, position };
            self.effects.push(Effect::Anomaly(anomaly));
            self.pause_fetching_from_leader(now_ms);
            return false;
        }
        let (snapshot_id, position) = (fetching.id, fetching.position);
        fetching.position = end;
        let complete = end == response.size;
        let chunk = Effect::WriteSnapshotChunk { snapshot_id, position, bytes: response.bytes };
        self.effects.push(chunk);
        if complete {
            self.loading_snapshot = Some(snapshot_id);
            self.effects.push(Effect::LoadSnapshot { snapshot_id });
        }
        self.on_contact_with_leader(now_ms);
        true
    }
}
