//! What a driver is made of before it runs: the quorum, the log, the controller, and the queues to and from its thread.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use klamm_metadata::controller::Controller;
use klamm_metadata::loader::MetadataLoader;
use klamm_replication::quorum::{Effect, Quorum};
use tokio::sync::watch;

use super::super::channel::QuorumLeader;
use super::super::handle::{Command, ControllerHandle, MAX_QUEUED_DECISIONS};
use super::super::metadata_log::MetadataLog;
use super::super::publications::Publications;
use super::super::quorum_peers::QuorumPeers;
use super::super::room::Room;

/// The parts of a driver, and where it receives commands and sends images and requests.
pub(crate) struct DriverParts {
    /// The quorum and the effects of its start.
    pub(crate) quorum: (Quorum, Vec<Effect>),
    pub(crate) log: MetadataLog,
    pub(crate) controller: Controller,
    /// The state of the newest snapshot.
    pub(crate) committed: MetadataLoader,
    pub(crate) publications: Arc<Publications>,
    pub(crate) peers: QuorumPeers,
    pub(crate) ends: DriverEnds,
}

/// The driver's ends of its queues.
pub(crate) struct DriverEnds {
    pub(super) commands: Receiver<Command>,
    pub(super) room: Arc<Room>,
    pub(super) leader: watch::Sender<QuorumLeader>,
}

/// Creates the queues to and from a driver that does not run yet.
pub(crate) fn channel() -> (ControllerHandle, DriverEnds) {
    let (sender, commands): (SyncSender<Command>, _) = sync_channel(MAX_QUEUED_DECISIONS);
    let (leader, room) = (watch::Sender::default(), Arc::<Room>::default());
    let handle = ControllerHandle::new(sender, leader.subscribe(), Arc::clone(&room));
    (handle, DriverEnds { commands, room, leader })
}
