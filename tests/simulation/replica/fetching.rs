//! Both ends of a replica's fetch: a leader serves and counts it, a follower takes the answer in.

use super::{Replica, ends, has_no_room};
use crate::batch::PartitionBatch;
use crate::log_directories::PartitionDisk;
use crate::message::ReplicaFetch;
use crate::metadata_driver::NodeStep;
use crate::observation::Observation;
use crate::plant::Plant;
use klamm_log::producer_state::AppendOrigin;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, Offset};
use klamm_replication::partition::{
    FetchPosition, FetchedLog, FetchedPartition, Follow, IsrProposal, PartitionFetch, Reader,
};
use std::rc::Rc;

impl Replica {
    /// A follower fetches: what to answer, and a change of the ISR to propose.
    pub(crate) fn serve_fetch(
        &mut self,
        fetch: &ReplicaFetch,
        disk: &PartitionDisk,
        step: &mut NodeStep<'_>,
    ) -> (FetchedPartition, Vec<Rc<PartitionBatch>>, Option<IsrProposal>) {
        let mut fetched = FetchedPartition {
            error: ErrorCode::None,
            number: fetch.number,
            current_leader_epoch: fetch.current_leader_epoch,
            fetch_offset: fetch.fetch_offset,
            diverging: None,
            high_watermark: -1,
            log_start_offset: 0,
        };
        let mut batches = Vec::new();
        let mut proposal = None;
        match self.count_fetch(fetch, disk, step) {
            Err(error) => fetched.error = error,
            Ok((FetchPosition::Diverging(end), _)) => fetched.diverging = Some(end),
            Ok((FetchPosition::Valid, proposed)) => {
                proposal = proposed;
                let max = usize::try_from(step.random.between(1, 5)).expect("few");
                match disk.read(fetch.fetch_offset, Offset::MAX, max) {
                    Ok(read) => batches = read,
                    Err(at) => {
                        self.damaged = Some(at);
                        fetched.error = ErrorCode::KafkaStorageError;
                    }
                }
            }
        }
        self.settle(disk, step);
        if self.core.is_leader() {
            fetched.high_watermark = self.core.high_watermark();
        }
        (fetched, batches, proposal)
    }

    fn count_fetch(
        &mut self,
        fetch: &ReplicaFetch,
        disk: &PartitionDisk,
        step: &mut NodeStep<'_>,
    ) -> Result<(FetchPosition, Option<IsrProposal>), ErrorCode> {
        let asked = PartitionFetch {
            reader: Reader::Follower { id: fetch.follower, broker_epoch: fetch.broker_epoch },
            current_leader_epoch: Some(fetch.current_leader_epoch),
            fetch_offset: fetch.fetch_offset,
            last_fetched_epoch: fetch.last_fetched_epoch,
            log_start_offset: 0,
            now_ms: step.now_ms,
        };
        let epoch = fetch.last_fetched_epoch;
        let epoch_end = epoch.and_then(|epoch| disk.epochs.end_offset_for(epoch, disk.log.end()));
        let log = FetchedLog { log_start_offset: 0, epoch_end };
        let counted = self.core.on_fetch(&asked, log, None)?;
        if let (FetchPosition::Valid, _) = counted {
            let ReplicaFetch { partition, follower, broker_epoch, .. } = *fetch;
            step.observe(Observation::FetchCounted { partition, follower, broker_epoch });
        }
        if step.plant == Plant::DivergingFetchCounted
            && let (FetchPosition::Diverging(_), _) = counted
        {
            let undoubted = PartitionFetch { last_fetched_epoch: None, ..asked };
            self.core.on_fetch(&undoubted, log, None)?;
        }
        Ok(counted)
    }

    /// What the next fetch asks for; None if this replica follows nobody, or still has to sync.
    pub(crate) fn next_fetch(
        &mut self,
        broker_epoch: Option<i64>,
        disk: &PartitionDisk,
        plant: Plant,
    ) -> Option<(BrokerId, ReplicaFetch)> {
        if self.is_offline || disk.is_found_full {
            return None;
        }
        let flushes = plant != Plant::FollowerAcknowledgesUnsynced;
        let next = self.core.next_fetch(ends(disk), flushes, &disk.epochs)?;
        self.latest_fetch = next.number;
        let fetch = ReplicaFetch {
            partition: self.partition,
            follower: self.life.0,
            broker_epoch,
            number: next.number,
            current_leader_epoch: next.current_leader_epoch,
            fetch_offset: next.fetch_offset,
            last_fetched_epoch: next.last_fetched_epoch,
        };
        let leader_id = self.core.follower().expect("a follower fetches").leader_id;
        Some((leader_id.expect("a fetch has a leader"), fetch))
    }

    /// A fetch was answered. Returns what was to be done, and has been.
    pub(crate) fn on_fetched(
        &mut self,
        fetched: &FetchedPartition,
        batches: Vec<Rc<PartitionBatch>>,
        disk: &mut PartitionDisk,
        step: &mut NodeStep<'_>,
    ) -> Follow {
        let follow = self.core.on_fetched(fetched, &disk.epochs, disk.log.end());
        let Some(follow) = follow else { return Follow::Ignore };
        match follow {
            Follow::Append { .. } if !batches.is_empty() && has_no_room(disk, step) => {
                return Follow::BackOff;
            }
            Follow::Append { .. } => {
                for batch in batches {
                    self.replicate(batch, disk, step);
                }
                let start = self.core.on_replicated(fetched, disk.log.end());
                assert!(start <= disk.log.start(), "nothing is deleted");
                self.settle(disk, step);
            }
            Follow::TruncateTo(end_offset) => {
                self.truncate(end_offset, disk);
                step.observe(Observation::PartitionCut);
                self.settle(disk, step);
            }
            _ => {}
        }
        follow
    }

    pub(super) fn replicate(
        &mut self,
        batch: Rc<PartitionBatch>,
        disk: &mut PartitionDisk,
        step: &mut NodeStep<'_>,
    ) {
        let taken = self.producers.append(&batch.header, AppendOrigin::Replication);
        taken.expect("what a leader has accepted is taken over");
        disk.append(Rc::clone(&batch));
        let (life, partition) = (self.life, self.partition);
        step.observe(Observation::Written { life, partition, batch });
    }
}
