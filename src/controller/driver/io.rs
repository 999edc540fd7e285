//! The quorum, its log, and the channels out of the metadata thread: how the controller's driver calls and the quorum's
//! effects are carried out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use klamm_metadata::loader::MetadataLoader;
use klamm_metadata::metadata_version::MetadataVersion;
use klamm_metadata::quorum_controller::{self, HeldUntil};
use klamm_protocol::batch_builder::BatchBuilder;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use klamm_protocol::metadata_record::MetadataRecord;
use klamm_replication::quorum::{
    Anomaly, Effect, FlushTicket, KRaftUpgradeError, Quorum, RequestId,
};
use tokio::sync::{oneshot, watch};
use tracing::{debug, info, warn};

use super::super::channel::QuorumLeader;
use super::super::contradictions::{Contradictions, peer};
use super::super::handle::{Completion, ControllerError, DecisionTurn, QuorumAnswer};
use super::super::metadata_log::{MetadataLog, MetadataLogError};
use super::super::publications::Publications;
use super::super::quorum_peers::QuorumPeers;
use super::super::room::Room;
use crate::clock;
use crate::metadata_cache::PublishedImage;
use crate::net::peer::PeerAddress;

/// See the module. It belongs to the metadata thread.
pub(super) struct Io {
    pub(super) quorum: Quorum,
    /// The effects of the quorum that are not performed yet, in order.
    pub(super) effects: VecDeque<Effect>,
    pub(super) log: MetadataLog,
    pub(super) room: Arc<Room>,
    pub(super) publications: Arc<Publications>,
    pub(super) peers: QuorumPeers,
    /// Requests of other replicas that are not answered yet.
    pub(super) requests: BTreeMap<RequestId, oneshot::Sender<QuorumAnswer>>,
    pub(super) next_request_id: u64,
    pub(super) leader: watch::Sender<QuorumLeader>,
    pub(super) contradictions: Contradictions,
    /// `metadata.max.retention.bytes`, of the log and its snapshots together.
    pub(super) max_retention_bytes: u64,
}

impl quorum_controller::Driver<Completion> for Io {
    type Error = MetadataLogError;

    fn led_epoch(&self) -> Option<LeaderEpoch> {
        self.quorum.is_leader().then(|| self.quorum.epoch())
    }

    fn end_offset(&self) -> Offset {
        self.quorum.log().end_offset
    }

    fn kraft_version(&self) -> i16 {
        *self.quorum.membership().kraft_version.latest()
    }

    fn voters(&self) -> impl Iterator<Item = BrokerId> {
        self.quorum.membership().voters.latest().ids()
    }

    fn lost_leader(&self) -> Option<BrokerId> {
        self.quorum.lost_leader()
    }

    fn append(
        &mut self,
        epoch: LeaderEpoch,
        records: &[MetadataRecord],
        version: MetadataVersion,
    ) -> Result<bool, MetadataLogError> {
        let now = clock::now();
        let mut batch = BatchBuilder::new(self.end_offset()).leader_epoch(epoch);
        for record in records {
            let frame = record.to_frame(version.record_version(record))?;
            batch.append(now.wall_ms, None, Some(&frame), &[])?;
        }
        let batch = batch.build()?;
        let count = u32::try_from(records.len()).expect("a decision has far fewer records");
        match self.quorum.append(now.steady_ms, epoch, count, batch.bytes) {
            Ok(effects) => {
                self.effects.extend(effects);
                Ok(true)
            }
            Err(lost) => {
                info!("the controller refuses a decision that it could not append: {lost}");
                Ok(false)
            }
        }
    }

    fn replay_committed(
        &mut self,
        committed: &mut MetadataLoader,
        high_watermark: Offset,
    ) -> Result<(), MetadataLogError> {
        self.with_room(|log| log.replay(committed, high_watermark))
    }

    fn publish(&mut self, committed: &MetadataLoader) {
        self.publications.publish(PublishedImage {
            image: committed.stable().clone(),
            end_offset: committed.end_offset(),
            kraft_version: self.kraft_version(),
        });
    }

    fn complete(&mut self, completion: Completion, held_until: HeldUntil) {
        match held_until {
            HeldUntil::Committed => completion(Ok(())),
            HeldUntil::Published => self.publications.complete(completion),
        }
    }

    fn refuse(&mut self, completion: Completion) {
        completion(Err(ControllerError::NotController));
    }
}

impl Io {
    /// Runs `attempt` on the log. Repeats it while space, descriptors or memory are lacking.
    pub(super) fn with_room<T>(
        &mut self,
        mut attempt: impl FnMut(&mut MetadataLog) -> Result<T, MetadataLogError>,
    ) -> Result<T, MetadataLogError> {
        let (room, log) = (&self.room, &mut self.log);
        room.wait_for(|| match attempt(log) {
            Err(lacking) if log.makes_room(&lacking) => attempt(log),
            outcome => outcome,
        })
    }

    /// The offset and the time of a decision that is made now.
    pub(super) fn turn(&self) -> DecisionTurn {
        DecisionTurn { next_offset: self.quorum.log().end_offset, now_ms: clock::now_ms() }
    }

    pub(super) fn flush(&mut self, ticket: FlushTicket) -> Result<(), MetadataLogError> {
        self.with_room(MetadataLog::flush)?;
        self.effects.extend(self.quorum.on_flushed(clock::now_ms(), ticket));
        Ok(())
    }

    pub(super) fn upgrade_kraft_version(
        &mut self,
        to: i16,
        validate_only: bool,
    ) -> Result<(), KRaftUpgradeError> {
        let (now_ms, epoch) = (clock::now_ms(), self.quorum.epoch());
        let upgraded = self.quorum.upgrade_kraft_version(now_ms, epoch, to, validate_only)?;
        self.effects.extend(upgraded);
        Ok(())
    }

    /// Publishes to the rest of the node that this node is the active controller.
    pub(super) fn show_active(&self, epoch: LeaderEpoch) {
        info!(epoch, "this node is the active controller in epoch {epoch}");
        self.leader.send_modify(|leader| leader.is_active_here = true);
    }

    /// Publishes to the rest of the node that this node is no longer the active controller.
    pub(super) fn show_resigned(&self, epoch: LeaderEpoch) {
        info!(epoch, "this node is no longer the controller of epoch {epoch}");
        self.leader.send_modify(|leader| leader.is_active_here = false);
    }

    /// Publishes the leader of the quorum and its address to the rest of the node.
    pub(super) fn show_leader(&self, epoch: LeaderEpoch, id: Option<BrokerId>) {
        let address = self.quorum.leader_endpoints().address(self.peers.listener());
        let address = address.map(|at| PeerAddress { host: at.host.clone(), port: at.port });
        match id {
            Some(id) => {
                info!(node = id, epoch, "node {id} leads the metadata quorum in epoch {epoch}")
            }
            None => debug!("the metadata quorum has no leader in epoch {epoch}"),
        }
        self.leader.send_replace(QuorumLeader { epoch, id, address, is_active_here: false });
    }

    /// The quorum has ignored a peer's contradictory message. If the leader lacks records that are committed here, this
    /// node cannot follow it and stops.
    pub(super) fn on_anomaly(&mut self, anomaly: &Anomaly) -> Result<(), MetadataLogError> {
        let peer = peer(anomaly, self.quorum.leader_id());
        if let Anomaly::TruncationBelowHighWatermark { end_offset, high_watermark } = *anomaly {
            return Err(MetadataLogError::LeaderLacksCommitted {
                leader: peer.expect("only a leader's log is followed"),
                epoch: self.quorum.epoch(),
                dir: self.log.dir().to_path_buf(),
                end_offset,
                high_watermark,
            });
        }
        let name = peer.map_or_else(|| "a peer".to_owned(), |id| format!("node {id}"));
        match self.contradictions.on_anomaly(clock::now_ms(), anomaly, peer) {
            None => {}
            Some(0) => {
                warn!("{name} contradicts what is known of the metadata quorum: {anomaly:?}")
            }
            Some(suppressed) => warn!(
                "{name} contradicts what is known of the metadata quorum \
                 ({suppressed} more times since the last warning): {anomaly:?}"
            ),
        }
        Ok(())
    }
}
