//! The effects of the quorum, carried out one by one, in order.

use super::{MetadataDriver, NodeStep, SNAPSHOT_BYTES, loaded};
use crate::disk::Disk;
use crate::message::{Address, Message};
use crate::node::NodeTimer;
use crate::observation::Observation;
use crate::plant::Plant;
use bytes::Bytes;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use klamm_replication::OffsetAndEpoch;
use klamm_replication::quorum::message::{
    FetchBody, FetchReply, FetchReplyBody, FetchResponse, FetchSnapshotReply,
    FetchSnapshotResponse, Reply, Response,
};
use klamm_replication::quorum::{AppendBatch, ControlChange, Effect, FlushTicket, RequestId};

impl MetadataDriver {
    /// Carries out everything that is to be done now. The power may fail between any two effects.
    pub(super) fn settle(&mut self, disk: &mut Disk, step: &mut NodeStep<'_>) {
        while let Some(effect) = self.effects.pop_front() {
            if step.is_dead() {
                return;
            }
            if disk.logs.is_first_full() && needs_room(&effect) {
                step.observe(Observation::MetadataWithoutRoom);
                return self.effects.push_front(effect);
            }
            self.perform(effect, disk, step);
            step.burn();
        }
    }

    /// What could not be written is written now, and what waited behind it is done.
    pub(crate) fn on_room(&mut self, disk: &mut Disk, step: &mut NodeStep<'_>) {
        self.settle(disk, step);
    }

    fn perform(&mut self, effect: Effect, disk: &mut Disk, step: &mut NodeStep<'_>) {
        match effect {
            Effect::PersistElection(election) => disk.persist_election(election),
            Effect::Append { base_offset, epoch, batch } => {
                self.append_to_disk(base_offset, epoch, batch, disk, step);
            }
            Effect::Truncate { end_offset } => {
                disk.metadata.truncate(end_offset);
                let (life, applied) = (self.life, self.controller.committed().end_offset());
                step.observe(Observation::MetadataCut { life, end_offset, applied });
            }
            Effect::Flush(ticket) => self.flush(ticket, disk, step),
            Effect::Send { correlation_id: id, to, request } => {
                let to = Address::Node(BrokerId::from(to.address.port));
                step.ask(to, Message::Quorum { id, request });
            }
            Effect::Reply { request_id, reply } => self.reply(request_id, reply, disk, step),
            Effect::CommitTo { high_watermark } => {
                self.with_controller(disk, step, |controller, io| {
                    controller.on_high_watermark(high_watermark, io)
                })
            }
            Effect::BecameLeader { epoch } => {
                let now_ms = step.now_ms;
                let is_active = self.with_controller(disk, step, |controller, io| {
                    controller.on_became_leader(epoch, now_ms, io)
                });
                if is_active {
                    step.observe(Observation::ControllerActive { life: self.life, epoch });
                }
            }
            Effect::Resigned { .. } => self.with_controller(disk, step, |controller, io| {
                controller.on_resigned(io);
                Ok(())
            }),
            Effect::LoadSnapshot { snapshot_id } => self.load_snapshot(snapshot_id, disk, step),
            Effect::WriteSnapshotChunk { .. } | Effect::LeaderChanged { .. } => {}
            Effect::Anomaly(anomaly) => {
                step.observe(Observation::Contradiction { life: self.life, anomaly });
            }
        }
    }

    fn flush(&mut self, ticket: FlushTicket, disk: &Disk, step: &mut NodeStep<'_>) {
        if step.plant == Plant::MetadataCountedBeforeSync {
            self.effects.extend(self.quorum.on_flushed(step.now_ms, ticket));
            return;
        }
        let mark = disk.metadata.sync_mark();
        let delay_ms = step.random.between(0, 12);
        step.after(delay_ms, NodeTimer::MetadataSynced { ticket, mark });
    }

    fn append_to_disk(
        &mut self,
        base: Offset,
        epoch: LeaderEpoch,
        batch: AppendBatch,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        match batch {
            AppendBatch::Fetched(batches) => {
                for bytes in &batches {
                    disk.metadata.append(step.store.batch(bytes));
                }
            }
            AppendBatch::Records(bytes) => {
                let records = step.store.announced(&bytes);
                let next = base + Offset::try_from(records.len()).expect("few records");
                let batch = step.store.write((base, next), epoch, Vec::new(), Some(records));
                disk.metadata.append(batch);
            }
            AppendBatch::Membership(change) => {
                let changes = change.changes(base);
                let next = base + Offset::try_from(changes.len()).expect("two at most");
                disk.metadata.append(step.store.write((base, next), epoch, changes, None));
            }
            AppendBatch::EpochStart(start) => {
                let next = base + Offset::from(start.record_count());
                let changes = start.membership.map(|(level, voters)| {
                    vec![
                        (base + 1, ControlChange::KRaftVersion(level)),
                        (base + 2, ControlChange::Voters(voters)),
                    ]
                });
                let changes = changes.unwrap_or_default();
                disk.metadata.append(step.store.write((base, next), epoch, changes, None));
                step.observe(Observation::QuorumLed { life: self.life, epoch });
            }
        }
    }

    fn load_snapshot(&mut self, id: OffsetAndEpoch, disk: &mut Disk, step: &mut NodeStep<'_>) {
        step.observe(Observation::SnapshotLoaded);
        let file = step.store.snapshot(id);
        let (loader, membership) = (loaded(&file), file.membership.clone());
        disk.start_at_snapshot(file);
        self.effects.extend(self.quorum.on_snapshot_loaded(step.now_ms, id, membership));
        let (life, end_offset, now_ms) = (self.life, loader.end_offset(), step.now_ms);
        self.with_controller(disk, step, |controller, io| {
            controller.on_snapshot_loaded(loader, 0, now_ms, io);
            Ok(())
        });
        step.observe(Observation::MetadataApplied { life, end_offset });
    }

    fn reply(&mut self, request_id: RequestId, reply: Reply, disk: &Disk, step: &mut NodeStep<'_>) {
        let Some((to, id)) = self.requests.remove(&request_id) else {
            assert!(step.plant == Plant::NoCheckQuorum, "a request is answered once");
            return;
        };
        if let Reply::AddVoter(change) | Reply::RemoveVoter(change) = &reply
            && change.error == ErrorCode::None
        {
            let offset = self.quorum.membership().voters.latest_offset();
            let offset = offset.expect("a change is a record");
            step.observe(Observation::VotersChanged { life: self.life, offset });
        }
        let response = response(reply, disk, step);
        step.answer(to, Message::QuorumAnswer { id, response });
    }
}

/// Whether an effect writes to the log. Until it can, nothing that comes after it may be said or done.
fn needs_room(effect: &Effect) -> bool {
    matches!(effect, Effect::PersistElection(_) | Effect::Append { .. })
}

fn response(reply: Reply, disk: &Disk, step: &mut NodeStep<'_>) -> Response {
    match reply {
        Reply::Vote(vote) => Response::Vote(vote),
        Reply::BeginQuorumEpoch(begin) => Response::BeginQuorumEpoch(begin),
        Reply::EndQuorumEpoch(end) => Response::EndQuorumEpoch(end),
        Reply::Fetch(fetch) => Response::Fetch(read(fetch, disk, step)),
        Reply::FetchSnapshot(fetch) => Response::FetchSnapshot(read_snapshot(fetch, disk, step)),
        Reply::AddVoter(add) => Response::AddVoter(add),
        Reply::RemoveVoter(remove) => Response::RemoveVoter(remove),
        Reply::UpdateVoter(update) => Response::UpdateVoter(update),
        Reply::ApiVersions(versions) => Response::ApiVersions(versions),
        Reply::Refused(error) => Response::Failed(error),
    }
}

fn read(reply: FetchReply, disk: &Disk, step: &mut NodeStep<'_>) -> FetchResponse {
    let body = match reply.body {
        FetchReplyBody::Empty => FetchBody::Records(Vec::new()),
        FetchReplyBody::Diverging(end) => FetchBody::Diverging(end),
        FetchReplyBody::Snapshot(id) => FetchBody::Snapshot(id),
        FetchReplyBody::Records { offset, .. } => {
            let max = usize::try_from(step.random.between(1, 8)).expect("few");
            let batches = disk.metadata.read(offset, Offset::MAX, max);
            FetchBody::Records(batches.iter().map(|batch| batch.fetched()).collect())
        }
    };
    FetchResponse {
        error: reply.error,
        leader: reply.leader,
        high_watermark: reply.high_watermark,
        log_start_offset: reply.log_start_offset,
        body,
    }
}

fn read_snapshot(
    fetch: FetchSnapshotReply,
    disk: &Disk,
    step: &mut NodeStep<'_>,
) -> FetchSnapshotResponse {
    let found = disk.snapshot.as_ref().is_some_and(|file| file.id == fetch.snapshot_id);
    let error = match fetch.error {
        ErrorCode::None if !found => ErrorCode::SnapshotNotFound,
        error => error,
    };
    let left = (SNAPSHOT_BYTES - fetch.position).max(1);
    let length = usize::try_from(step.random.between(1, left)).expect("a short piece");
    FetchSnapshotResponse {
        error,
        leader: fetch.leader,
        snapshot_id: fetch.snapshot_id,
        size: SNAPSHOT_BYTES,
        position: fetch.position,
        bytes: Bytes::from(vec![0; length]),
    }
}
