//! Client quotas by entity (KIP-546).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytestring::ByteString;
use klamm_protocol::messages::client_quota_record::ClientQuotaRecord;

use super::PersistentMap;

/// The entity of a quota: entity types (user, client-id, ip) with their names; no name means the default of that type.
pub type QuotaEntity = BTreeMap<ByteString, Option<ByteString>>;

/// The quotas of one entity, by key.
pub type Quotas = BTreeMap<ByteString, f64>;

/// All client quotas. An entity without a quota is absent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClientQuotasImage {
    entities: PersistentMap<QuotaEntity, Arc<Quotas>>,
}

impl ClientQuotasImage {
    /// The quotas of exactly this entity.
    pub fn get(&self, entity: &QuotaEntity) -> Option<&Quotas> {
        self.entities.get(entity).map(Arc::as_ref)
    }

    /// Every entity that has quotas.
    pub fn iter(&self) -> impl Iterator<Item = (&QuotaEntity, &Quotas)> {
        self.entities.iter().map(|(entity, quotas)| (entity, quotas.as_ref()))
    }

    /// Whether there is a difference. Cheap between images that share this part.
    pub(crate) fn differs_from(&self, other: &Self) -> bool {
        !self.entities.ptr_eq(&other.entities) && self != other
    }

    pub(super) fn replay(&mut self, record: &ClientQuotaRecord) {
        let parts = record.entity.iter();
        let entity: QuotaEntity =
            parts.map(|part| (part.entity_type.clone(), part.entity_name.clone())).collect();
        let mut quotas = self.get(&entity).cloned().unwrap_or_default();
        if record.remove {
            quotas.remove(&record.key);
        } else {
            quotas.insert(record.key.clone(), record.value);
        }
        if quotas.is_empty() {
            self.entities.remove_mut(&entity);
        } else {
            self.entities.insert_mut(entity, Arc::new(quotas));
        }
    }
}
