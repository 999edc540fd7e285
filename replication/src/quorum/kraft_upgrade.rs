//! The upgrade of kraft.version from 0 to 1: the voters, static before, are written to the log with their directory ids
//! (KIP-853; Kafka's `LeaderState.maybeAppendUpgradedKRaftVersion`).

use super::control_batch::MembershipBatch;
use super::role::Role;
use super::voters::VoterSet;
use super::{Effect, NotLeader, Quorum};
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch};

/// Why kraft.version is not upgraded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KRaftUpgradeError {
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    #[error(
        "Invalid upgrade of kraft.version from version {from} to {to} because the new version is a downgrade"
    )]
    Downgrade { from: i16, to: i16 },
    #[error("Invalid upgrade of kraft.version to {to} because not all of the voters support it")]
    Unsupported { to: i16 },
    #[error(
        "kraft.version cannot be upgraded yet: the directories of the voters {voters:?} are not known"
    )]
    UnknownDirectories { voters: Vec<BrokerId> },
}

impl KRaftUpgradeError {
    /// The error code for the client of the upgrade.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotLeader(error) => error.code(),
            Self::Downgrade { .. } | Self::Unsupported { .. } => ErrorCode::InvalidUpdateVersion,
            Self::UnknownDirectories { .. } => ErrorCode::InvalidUpdateVersion,
        }
    }
}

impl Quorum {
    /// Raises kraft.version, or with `validate_only` checks whether it could be raised. The current level needs no
    /// change.
    pub fn upgrade_kraft_version(
        &mut self,
        now_ms: i64,
        epoch: LeaderEpoch,
        to: i16,
        validate_only: bool,
    ) -> Result<Vec<Effect>, KRaftUpgradeError> {
        let from = *self.membership.kraft_version.latest();
        let voters = self.upgraded_voters(epoch, from, to)?;
        if let Some(voters) = voters.filter(|_| !validate_only) {
            let voters = (voters != *self.voters()).then_some(voters);
            let batch = MembershipBatch {
                kraft_version: Some(to),
                voters,
                timestamp_ms: self.wall_ms(now_ms),
            };
            self.append_membership(now_ms, batch);
            if let Role::Leader(leader) = &mut self.role {
                leader.volatile_voters = None;
            }
        }
        Ok(self.proceed(now_ms))
    }

    /// The voters to write to the log; None if no upgrade is needed.
    fn upgraded_voters(
        &self,
        epoch: LeaderEpoch,
        from: i16,
        to: i16,
    ) -> Result<Option<VoterSet>, KRaftUpgradeError> {
        let current = self.election.epoch;
        let Role::Leader(leader) = &self.role else {
            return Err(NotLeader { requested: epoch, current }.into());
        };
        if epoch != current {
            return Err(NotLeader { requested: epoch, current }.into());
        }
        if from == to {
            return Ok(None);
        }
        if from > to {
            return Err(KRaftUpgradeError::Downgrade { from, to });
        }
        let Some(voters) = &leader.volatile_voters else {
            return Err(KRaftUpgradeError::Unsupported { to });
        };
        if !voters.iter().all(|voter| voter.supported_kraft_version.contains(to)) {
            return Err(KRaftUpgradeError::Unsupported { to });
        }
        let unknown = voters.iter().filter(|voter| voter.key.directory_id.is_none());
        let unknown: Vec<BrokerId> = unknown.map(|voter| voter.key.id).collect();
        if !unknown.is_empty() {
            return Err(KRaftUpgradeError::UnknownDirectories { voters: unknown });
        }
        Ok(Some(voters.clone()))
    }
}
