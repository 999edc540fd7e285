//! SCRAM credentials by mechanism and user (KIP-900). Secrets: never print an image's credentials.

use std::fmt;

use bytestring::ByteString;
use klamm_protocol::messages::remove_user_scram_credential_record::RemoveUserScramCredentialRecord;
use klamm_protocol::messages::user_scram_credential_record::UserScramCredentialRecord;

use super::PersistentMap;
use super::replay_error::ReplayError;

/// A SCRAM mechanism (Kafka's ScramMechanism).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ScramMechanism {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

impl ScramMechanism {
    /// The mechanism with this id in records and requests.
    pub fn from_id(id: i8) -> Option<Self> {
        match id {
            1 => Some(Self::Sha256),
            2 => Some(Self::Sha512),
            _ => None,
        }
    }
}

/// All SCRAM credentials.
#[derive(Clone, PartialEq, Default)]
pub struct ScramImage {
    credentials: PersistentMap<(ScramMechanism, ByteString), UserScramCredentialRecord>,
}

impl fmt::Debug for ScramImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.credentials.keys()).finish()
    }
}

impl ScramImage {
    /// The credential of a user.
    pub fn get(
        &self,
        mechanism: ScramMechanism,
        user: &ByteString,
    ) -> Option<&UserScramCredentialRecord> {
        self.credentials.get(&(mechanism, user.clone()))
    }

    /// All credentials, by mechanism and user.
    pub fn iter(&self) -> impl Iterator<Item = &UserScramCredentialRecord> {
        self.credentials.values()
    }

    /// Whether anything differs. Costs nothing between images that share this part.
    pub(crate) fn differs_from(&self, other: &Self) -> bool {
        !self.credentials.ptr_eq(&other.credentials) && self != other
    }

    pub(super) fn replay(&mut self, record: &UserScramCredentialRecord) -> Result<(), ReplayError> {
        let key = key(record.mechanism, &record.name)?;
        self.credentials.insert_mut(key, record.clone());
        Ok(())
    }

    pub(super) fn replay_remove(
        &mut self,
        record: &RemoveUserScramCredentialRecord,
    ) -> Result<(), ReplayError> {
        if !self.credentials.remove_mut(&key(record.mechanism, &record.name)?) {
            return Err(ReplayError::UnknownScramCredential {
                user: record.name.clone(),
                mechanism: record.mechanism,
            });
        }
        Ok(())
    }
}

fn key(mechanism: i8, user: &ByteString) -> Result<(ScramMechanism, ByteString), ReplayError> {
    let known = ScramMechanism::from_id(mechanism)
        .ok_or_else(|| ReplayError::UnknownScramMechanism { user: user.clone(), mechanism })?;
    Ok((known, user.clone()))
}
