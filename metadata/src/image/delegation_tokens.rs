//! Delegation tokens by id (KIP-48), as recorded.

use bytestring::ByteString;
use klamm_protocol::messages::delegation_token_record::DelegationTokenRecord;
use klamm_protocol::messages::remove_delegation_token_record::RemoveDelegationTokenRecord;

use super::PersistentMap;

/// All delegation tokens.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DelegationTokensImage {
    tokens: PersistentMap<ByteString, DelegationTokenRecord>,
}

impl DelegationTokensImage {
    /// The token with this id.
    pub fn get(&self, id: &str) -> Option<&DelegationTokenRecord> {
        self.tokens.get(id)
    }

    /// All tokens by id.
    pub fn iter(&self) -> impl Iterator<Item = &DelegationTokenRecord> {
        self.tokens.values()
    }

    pub(super) fn replay(&mut self, record: &DelegationTokenRecord) {
        self.tokens.insert_mut(record.token_id.clone(), record.clone());
    }

    /// Kafka removes an expired token once per sweep that sees it, so an absent one is no error.
    pub(super) fn replay_remove(&mut self, record: &RemoveDelegationTokenRecord) {
        self.tokens.remove_mut(&record.token_id);
    }
}
