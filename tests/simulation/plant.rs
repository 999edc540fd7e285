//! Bugs that are planted on purpose, to prove that the invariants catch them.
//!
//! They live in the simulated drivers, which only this test target compiles: what ships has no
//! switch that could be left on. Each is a mistake that a real driver could make with the same cores.

/// A mistake in a driver, or in a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plant {
    None,
    /// A vote is answered before it is on disk.
    VoteNotPersisted,
    /// A node counts its own metadata records before they are synced.
    MetadataCountedBeforeSync,
    /// The state machine replays what is not committed.
    MetadataAppliedBeforeCommit,
    /// Contact that is long past counts for check-quorum.
    NoCheckQuorum,
    /// min.insync.replicas is taken for 1.
    MinIsrIgnored,
    /// A new follower cuts its log to its high watermark (before KIP-101).
    TruncateToHighWatermark,
    /// A replica whose directory is not there is begun anew with an empty log.
    OpensMissedReplicaEmpty,
    /// Of two logs of a partition the one is opened that is not recorded.
    OtherLogWins,
    /// A replica that is eligible to lead is begun anew elsewhere while its directory is not there.
    BeginsEligibleReplicaAnew,
    /// A leader that cannot begin its epoch for want of room leads on, serves nobody, and finds its followers lagging.
    DeadLeaderShrinksIsr,
    /// A leader waits for silent followers until `replica.lag.time.max.ms` is over.
    SilentFollowersStay,
    /// A leader whose directory is full stays, and waits for room.
    FullLeaderStays,
    /// A broker whose directory fails does not tell the controller.
    FailedDirectoryNotReported,
    /// A copy replaces the log before the metadata have its directory.
    ReplacedBeforeRecorded,
    /// A copy is copied on although its log was truncated meanwhile.
    CopyNotAligned,
    /// Damage is cut off while the replica is still counted on.
    DamageCutInSync,
    /// A follower's fetch acknowledges what it has not synced.
    FollowerAcknowledgesUnsynced,
    /// A restarted broker leads on from old metadata, before it has registered anew.
    LeaderResumesItsEpoch,
    /// A fetch that diverges is counted all the same (KAFKA-13141).
    DivergingFetchCounted,
    /// A shrink of the ISR takes effect before the controller has committed it.
    ShrinkBeforeCommit,
    /// An AlterPartition does not say in which life of its broker a replica has fetched (before KIP-903).
    ProposalWithoutBrokerEpochs,
    /// The controller takes replicas of fenced brokers into the ISR (before KIP-841: INELIGIBLE_REPLICA).
    FencedReplicaJoinsIsr,
    /// An AlterPartition that got no answer is taken for one that was refused.
    LostAnswerTakenForRefusal,
    /// A new leader begins without the state of its producers.
    DuplicateDetectionLost,
    /// acks=all is answered when the leader has appended.
    AcknowledgedOnAppend,
    /// A produce goes on waiting when the leader has been deposed, and is answered by the offset when it
    /// leads again: another record may be there.
    WaitingOutlivesLeadership,
    /// What is stored is stamped with the steady clock.
    CommitsCarrySteadyClock,
    /// What is stored is judged by a wall clock that was set a moment ago.
    SkippedDaysAreBelieved,
    /// A node that starts takes what its wall clock has stamped for the time that was trusted.
    RestartBelievesSkippedDays,
    /// Timers follow the wall clock.
    TimersFollowWallClock,
    /// A new leader tells where the partition ends before it knows (before KIP-207).
    LatestShownTooEarly,
    /// The group coordinator takes appended offsets for committed ones.
    OffsetsShownBeforeCommit,
}
