//! Access control entries by id. They are kept as recorded; the authorizer interprets them.

use klamm_protocol::Uuid;
use klamm_protocol::messages::access_control_entry_record::AccessControlEntryRecord;
use klamm_protocol::messages::remove_access_control_entry_record::RemoveAccessControlEntryRecord;

use super::PersistentMap;
use super::replay_error::ReplayError;

/// All access control entries.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AclsImage {
    entries: PersistentMap<Uuid, AccessControlEntryRecord>,
}

impl AclsImage {
    /// All entries by id.
    pub fn iter(&self) -> impl Iterator<Item = &AccessControlEntryRecord> {
        self.entries.values()
    }

    /// Whether anything differs. Costs nothing between images that share this part.
    pub(crate) fn differs_from(&self, other: &Self) -> bool {
        !self.entries.ptr_eq(&other.entries) && self != other
    }

    pub(super) fn replay(&mut self, record: &AccessControlEntryRecord) -> Result<(), ReplayError> {
        if self.entries.contains_key(&record.id) {
            return Err(ReplayError::DuplicateAcl { id: record.id });
        }
        self.entries.insert_mut(record.id, record.clone());
        Ok(())
    }

    pub(super) fn replay_remove(
        &mut self,
        record: &RemoveAccessControlEntryRecord,
    ) -> Result<(), ReplayError> {
        if !self.entries.remove_mut(&record.id) {
            return Err(ReplayError::UnknownAcl { id: record.id });
        }
        Ok(())
    }
}
