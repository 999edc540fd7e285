//! Asking the controller: a decision goes to its thread, the answer comes back once it is committed
//! and published.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

use bytes::Bytes;
use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
pub(crate) use klamm_metadata::quorum_controller::HeldUntil;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, Offset};
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
    /// By the steady clock, for sessions and timeouts.
    pub(crate) now_ms: i64,
}

/// Called once the records of a decision are committed (and published, if that was asked for), or never
/// will be.
pub(crate) type Completion = Box<dyn FnOnce(Result<(), ControllerError>) + Send>;

/// Decides with the controller, or learns that it cannot: then there is no outcome.
pub(super) type Decision = Box<
    dyn FnOnce(
            Result<(&mut Controller, &DecisionTurn), ControllerError>,
        ) -> Option<Outcome<Completion>>
        + Send,
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
    Decide(HeldUntil, Decision),
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
        let decision: Decision = Box::new(move |controller| {
            // The client may have gone away when the answer comes: then it needs none.
            let (controller, turn) = match controller {
                Ok(controller) => controller,
                Err(error) => {
                    drop(answer.send(Err(error)));
                    return None;
                }
            };
            let context = DecisionContext::new(turn, origin);
            let outcome = decision(controller, &context);
            if !outcome.records.is_empty() {
                let (count, requester) = (outcome.records.len(), &context.origin.requester);
                tracing::debug!("{count} records decided for {requester}");
            }
            let completion = |response| -> Completion {
                Box::new(move |held| drop(answer.send(held.map(|()| response))))
            };
            Some(outcome.map(completion))
        });
        self.send(Command::Decide(held_until, decision))?;
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
