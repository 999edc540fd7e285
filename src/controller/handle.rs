//! How the rest of the node calls the controller's thread. A decision is queued; its answer comes back once its records
//! are committed and, if the caller wants that, published.

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

/// The most commands that may be queued. Others are rejected, so that a slow disk cannot fill the memory.
pub(crate) const MAX_QUEUED_DECISIONS: usize = 1024;

/// Why there is no answer to a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ControllerError {
    #[error("this node is not the active controller")]
    NotController,
    #[error("the controller has {MAX_QUEUED_DECISIONS} commands queued")]
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

/// The time and the log end offset at which the controller's thread makes a decision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DecisionTurn {
    /// The offset of the decision's first record.
    pub(crate) next_offset: Offset,
    /// By the steady clock, for sessions and timeouts.
    pub(crate) now_ms: i64,
}

/// Called with `Ok` once the records of a decision are committed (and published, with [`HeldUntil::Published`]), or
/// with an error if this node cannot tell any more whether they will be.
pub(crate) type Completion = Box<dyn FnOnce(Result<(), ControllerError>) + Send>;

/// Makes a decision with the controller. Gets an error instead, and returns no outcome, if this node is not the active
/// controller.
pub(super) type Decision = Box<
    dyn FnOnce(
            Result<(&mut Controller, &DecisionTurn), ControllerError>,
        ) -> Option<Outcome<Completion>>
        + Send,
>;

/// The answer to a replica of the metadata log, with the records or the snapshot chunk that it fetches.
#[derive(Debug)]
pub(crate) enum QuorumAnswer {
    Plain(Reply),
    Fetch(FetchReply, Bytes),
    FetchSnapshot(FetchSnapshotReply, Result<SnapshotPiece, ErrorCode>),
}

/// A command for the controller's thread.
pub(crate) enum Command {
    Decide(HeldUntil, Decision),
    /// A request of another replica of the metadata log.
    Quorum(Inbound, oneshot::Sender<QuorumAnswer>),
    /// The response of another replica, or why there is none.
    Responded(CorrelationId, Response),
    /// Raises kraft.version, or only checks whether it could be raised.
    UpgradeKRaftVersion {
        to: i16,
        validate_only: bool,
        answer: oneshot::Sender<Result<(), KRaftUpgradeError>>,
    },
    /// No process listens at the address of this replica.
    ProcessGone(BrokerId),
    DescribeQuorum(oneshot::Sender<Result<QuorumDescription, ErrorCode>>),
    Stop,
}

/// The sending end of the queue to the controller's thread.
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

    /// The leader of the metadata quorum, as a watch.
    pub(crate) fn leader(&self) -> watch::Receiver<QuorumLeader> {
        self.leader.clone()
    }

    /// Whether this node is the active controller.
    pub(crate) fn is_active(&self) -> bool {
        self.leader.borrow().is_active_here
    }

    /// Notifies the quorum that no process listens at the address of a replica.
    pub(super) fn process_gone(&self, id: BrokerId) {
        if let Err(error) = self.send(Command::ProcessGone(id)) {
            tracing::debug!(
                "the quorum is not notified that node {id} has no listening process: {error}"
            );
        }
    }

    /// Lets the quorum answer a request of another replica. A fetch may wait for records.
    pub(crate) async fn quorum(&self, inbound: Inbound) -> Result<QuorumAnswer, ControllerError> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Quorum(inbound, answer))?;
        answered.await.map_err(|_| ControllerError::Stopping)
    }

    /// Passes on another replica's response. If the queue is full, the response is dropped: the quorum tolerates that,
    /// because the network may lose one too.
    pub(super) fn responded(&self, id: CorrelationId, response: Response) {
        if let Err(error) = self.send(Command::Responded(id, response)) {
            tracing::debug!("a response of the metadata quorum is dropped: {error}");
        }
    }

    /// Queues a decision for the requester in `origin`, and waits as long as `held_until` says.
    pub(crate) async fn decide<R: Send + 'static>(
        &self,
        held_until: HeldUntil,
        origin: RequestOrigin,
        decision: impl FnOnce(&mut Controller, &DecisionContext) -> Outcome<R> + Send + 'static,
    ) -> Result<R, ControllerError> {
        let (answer, answered) = oneshot::channel::<Result<R, ControllerError>>();
        let decision: Decision = Box::new(move |controller| {
            // The client may have given up. Then no task receives the answer.
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

    /// Raises kraft.version; with `validate_only`, only checks whether it could be raised.
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

    /// Ends the controller's thread after the commands that are queued before. Decisions that are not committed by then
    /// get [`ControllerError::Stopping`].
    pub(crate) fn stop(&self) {
        self.room.stop();
        // An error means that the thread has already ended.
        drop(self.commands.send(Command::Stop));
    }

    fn send(&self, command: Command) -> Result<(), ControllerError> {
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => ControllerError::Busy,
            TrySendError::Disconnected(_) => ControllerError::Stopping,
        })
    }
}
