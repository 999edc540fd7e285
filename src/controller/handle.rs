//! Asking the controller: a decision goes to its thread, the answer comes back once it is committed
//! and published.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

use bytes::Bytes;
use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use klamm_protocol::metadata_record::MetadataRecord;
use klamm_replication::quorum::message::{
    FetchReply, FetchSnapshotReply, Inbound, Reply, Response,
};
use klamm_replication::quorum::wire::SnapshotPiece;
use klamm_replication::quorum::{CorrelationId, KRaftUpgradeError, QuorumDescription};
use tokio::sync::{oneshot, watch};

use super::channel::QuorumLeader;
use super::request::{DecisionContext, RequestOrigin};
use super::room::Room;

/// Decisions that may be queued: more are refused, so that a slow disk cannot fill the memory.
pub(crate) const MAX_QUEUED_DECISIONS: usize = 1024;

/// Why a decision has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ControllerError {
    #[error("this node is not the active controller")]
    NotController,
    #[error("the controller has {MAX_QUEUED_DECISIONS} decisions queued")]
    Busy,
    #[error("the node is stopping")]
    Stopping,
}

impl ControllerError {
    pub(crate) fn code(self) -> ErrorCode {
        match self {
            Self::NotController => ErrorCode::NotController,
            Self::Busy => ErrorCode::RequestTimedOut,
            Self::Stopping => ErrorCode::BrokerNotAvailable,
        }
    }
}

/// When and where in the log the controller's thread decides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DecisionTurn {
    /// Where the decision's first record will stand.
    pub(crate) next_offset: Offset,
    pub(crate) epoch: LeaderEpoch,
    /// By the steady clock, for sessions and timeouts.
    pub(crate) now_ms: i64,
    /// By the wall clock, for the timestamps of records.
    pub(crate) wall_ms: i64,
}

/// Called once the records of a decision are committed (and published, if that was asked for), or never
/// will be.
pub(crate) type Completion = Box<dyn FnOnce(Result<(), ControllerError>) + Send>;

/// A decision that has been made.
pub(crate) struct Decided {
    pub(crate) records: Vec<MetadataRecord>,
    pub(crate) atomic: bool,
    pub(crate) held_until: HeldUntil,
    pub(crate) completion: Completion,
}

/// When a decision is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeldUntil {
    /// As soon as its records are committed.
    Committed,
    /// When this node has applied them as well: a client finds here what it asked for.
    Published,
}

/// Decides with the controller, or learns that it cannot.
type Decision = Box<
    dyn FnOnce(Result<(&mut Controller, &DecisionTurn), ControllerError>) -> Option<Decided> + Send,
>;

/// What a replica of the metadata log is answered, with what was read for it.
#[derive(Debug)]
pub(crate) enum QuorumAnswer {
    Plain(Reply),
    Fetch(FetchReply, Bytes),
    FetchSnapshot(FetchSnapshotReply, Result<SnapshotPiece, ErrorCode>),
}

/// What the controller's thread is asked for.
pub(crate) enum Command {
    Decide(Decision),
    /// Another replica of the metadata log asks.
    Quorum(Inbound, oneshot::Sender<QuorumAnswer>),
    /// Another replica has answered, or could not be reached.
    Responded(CorrelationId, Response),
    /// Raises kraft.version, or says whether it could be raised.
    UpgradeKRaftVersion {
        to: i16,
        validate_only: bool,
        answer: oneshot::Sender<Result<(), KRaftUpgradeError>>,
    },
    /// Nobody listens where another replica is reached.
    ProcessGone(BrokerId),
    DescribeQuorum(oneshot::Sender<Result<QuorumDescription, ErrorCode>>),
    Stop,
}

/// The way to the controller's thread.
#[derive(Debug, Clone)]
pub(crate) struct ControllerHandle {
    commands: SyncSender<Command>,
    leader: watch::Receiver<QuorumLeader>,
    room: Arc<Room>,
}

impl ControllerHandle {
    pub(super) fn new(
        commands: SyncSender<Command>,
        leader: watch::Receiver<QuorumLeader>,
        room: Arc<Room>,
    ) -> Self {
        Self { commands, leader, room }
    }

    /// Who leads the metadata quorum, to be watched.
    pub(crate) fn leader(&self) -> watch::Receiver<QuorumLeader> {
        self.leader.clone()
    }

    /// Whether this node is the active controller.
    pub(crate) fn is_active(&self) -> bool {
        self.leader.borrow().is_active_here
    }

    /// Tells the quorum that nobody listens where a replica is reached.
    pub(super) fn process_gone(&self, id: BrokerId) {
        if let Err(error) = self.send(Command::ProcessGone(id)) {
            tracing::debug!("that node {id} is gone is not told: {error}");
        }
    }

    /// Has the quorum answer another replica. A fetch may wait for records.
    pub(crate) async fn quorum(&self, inbound: Inbound) -> Result<QuorumAnswer, ControllerError> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Quorum(inbound, answer))?;
        answered.await.map_err(|_| ControllerError::Stopping)
    }

    /// Brings another replica's answer. If the queue is full it is lost, as it may be on its way here.
    pub(super) fn responded(&self, id: CorrelationId, response: Response) {
        if let Err(error) = self.send(Command::Responded(id, response)) {
            tracing::debug!("an answer of the metadata quorum is lost: {error}");
        }
    }

    /// Has the controller decide for whom `origin` names, and waits as long as `held_until` says.
    pub(crate) async fn decide<R: Send + 'static>(
        &self,
        held_until: HeldUntil,
        origin: RequestOrigin,
        decision: impl FnOnce(&mut Controller, &DecisionContext) -> Outcome<R> + Send + 'static,
    ) -> Result<R, ControllerError> {
        let (answer, answered) = oneshot::channel::<Result<R, ControllerError>>();
        let command = Command::Decide(Box::new(move |controller| {
            // Whoever asked may have gone away when the answer comes: then nobody needs it.
            let (controller, turn) = match controller {
                Ok(controller) => controller,
                Err(error) => {
                    drop(answer.send(Err(error)));
                    return None;
                }
            };
            let context = DecisionContext::new(turn, origin);
            let Outcome { records, atomic, response } = decision(controller, &context);
            if !records.is_empty() {
                tracing::debug!(
                    "{} records decided for {}",
                    records.len(),
                    context.origin.requester
                );
            }
            let completion: Completion = Box::new(move |held| {
                drop(answer.send(held.map(|()| response)));
            });
            Some(Decided { records, atomic, held_until, completion })
        }));
        self.send(command)?;
        answered.await.unwrap_or(Err(ControllerError::Stopping))
    }

    /// Raises kraft.version, or with `validate_only` says whether it could be raised.
    pub(crate) async fn upgrade_kraft_version(
        &self,
        to: i16,
        validate_only: bool,
    ) -> Result<Result<(), KRaftUpgradeError>, ControllerError> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::UpgradeKRaftVersion { to, validate_only, answer })?;
        answered.await.map_err(|_| ControllerError::Stopping)
    }

    /// The state of the quorum's replicas.
    pub(crate) async fn describe_quorum(&self) -> Result<QuorumDescription, ErrorCode> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::DescribeQuorum(answer)).map_err(ControllerError::code)?;
        answered.await.unwrap_or(Err(ErrorCode::BrokerNotAvailable))
    }

    /// Ends the controller's thread once everything queued before has been answered.
    pub(crate) fn stop(&self) {
        self.room.stop();
        // If the thread has ended already there is nothing to stop.
        drop(self.commands.send(Command::Stop));
    }

    fn send(&self, command: Command) -> Result<(), ControllerError> {
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => ControllerError::Busy,
            TrySendError::Disconnected(_) => ControllerError::Stopping,
        })
    }
}
