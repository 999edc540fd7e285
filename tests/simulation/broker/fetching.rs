//! Followers fetch, leaders serve: one fetch of a partition at a time.

use super::{Broker, POLL_MS};
use crate::batch::{PartitionBatch, PartitionId};
use crate::disk::Disk;
use crate::message::{Address, Message, ReplicaFetch, Sender};
use crate::metadata_driver::NodeStep;
use crate::node::NodeTimer;
use crate::observation::Observation;
use klamm_protocol::ErrorCode;
use klamm_replication::partition::{FetchOutcome, FetchedPartition, Follow};
use std::rc::Rc;

impl Broker {
    pub(crate) fn fetch(&mut self, id: PartitionId, disk: &Disk, step: &mut NodeStep<'_>) {
        let broker_epoch = self.broker_epoch();
        let (Some(replica), Some(partition)) = (self.replicas.get_mut(&id), disk.logs.get(id))
        else {
            return;
        };
        // The clock may have gone slower than the timer.
        let Some(due_ms) = self.schedule.due_ms(&id) else { return };
        if due_ms > step.now_ms {
            let again = NodeTimer::Fetch { partition: id, number: replica.latest_fetch };
            return step.after(due_ms - step.now_ms, again);
        }
        let Some((leader_id, fetch)) = replica.next_fetch(broker_epoch, partition, step.plant)
        else {
            return;
        };
        let again = NodeTimer::Fetch { partition: id, number: fetch.number };
        step.after(self.schedule.patience_ms(), again);
        step.ask(Address::Node(leader_id), Message::Fetch(fetch));
    }

    /// Fetches again, unless another fetch has been sent since.
    pub(crate) fn on_fetch_timer(
        &mut self,
        id: PartitionId,
        number: u64,
        disk: &Disk,
        step: &mut NodeStep<'_>,
    ) {
        if self.replicas.get(&id).is_some_and(|replica| replica.latest_fetch == number) {
            self.fetch(id, disk, step);
        }
    }

    pub(crate) fn on_fetch(
        &mut self,
        from: Sender,
        fetch: ReplicaFetch,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        let id = fetch.partition;
        let served = self.replicas.get_mut(&id).filter(|_| !self.dead.contains(&id));
        let served = served.filter(|replica| !replica.is_offline);
        let (Some(replica), Some(partition)) = (served, disk.logs.get(id)) else {
            let (life, partition, follower) = (self.life, id, fetch.follower);
            let at_ms = step.now_ms;
            step.observe(Observation::FetchRefused { life, partition, follower, at_ms });
            let fetched = refused(&fetch, ErrorCode::NotLeaderOrFollower);
            let answer = Message::FetchAnswer { partition: id, fetched, batches: Vec::new() };
            return step.answer(from, answer);
        };
        let (fetched, batches, proposal) = replica.serve_fetch(&fetch, partition, step);
        step.answer(from, Message::FetchAnswer { partition: id, fetched, batches });
        if let Some(proposal) = proposal {
            self.propose(id, proposal, disk, step);
        }
        self.after_progress(id, disk, step);
    }

    pub(crate) fn on_fetched(
        &mut self,
        id: PartitionId,
        fetched: &FetchedPartition,
        batches: Vec<Rc<PartitionBatch>>,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        let (Some(replica), Some(partition)) = (self.replicas.get_mut(&id), disk.logs.get_mut(id))
        else {
            return;
        };
        let news = !batches.is_empty();
        let follow = replica.on_fetched(fetched, batches, partition, step);
        let outcome = match follow {
            Follow::Append { .. } | Follow::TruncateTo(_) => FetchOutcome::Progressed,
            Follow::BackOff => FetchOutcome::BackOff,
            Follow::AwaitMetadata => FetchOutcome::AwaitMetadata,
            Follow::FindLeaderRange | Follow::TruncateFullyAndStartAt(_) => {
                panic!("{id}: node {} is outside the log of its leader: {fetched:?}", self.life.0)
            }
            Follow::Ignore => return,
        };
        self.schedule.on_outcome(id, fetched.current_leader_epoch, outcome, step.now_ms);
        let again_ms = match follow {
            Follow::Append { .. } if news => {
                self.request_sync(disk, step);
                0
            }
            Follow::Append { .. } => POLL_MS,
            _ => match self.schedule.due_ms(&id) {
                Some(due_ms) => due_ms.saturating_sub(step.now_ms).max(0),
                None => return,
            },
        };
        if again_ms == 0 {
            return self.fetch(id, disk, step);
        }
        step.after(again_ms, NodeTimer::Fetch { partition: id, number: fetched.number });
    }
}

fn refused(fetch: &ReplicaFetch, error: ErrorCode) -> FetchedPartition {
    FetchedPartition {
        error,
        number: fetch.number,
        current_leader_epoch: fetch.current_leader_epoch,
        fetch_offset: fetch.fetch_offset,
        diverging: None,
        high_watermark: -1,
        log_start_offset: 0,
    }
}
