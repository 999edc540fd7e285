//! Voters and their endpoints: replica keys and voter sets (KIP-853).

use bytestring::ByteString;
use klamm_protocol::Uuid;
use klamm_protocol::ids::BrokerId;
use std::collections::BTreeMap;
use std::fmt;

/// A replica of the metadata log: the node id and, if known, the directory id of its log.
///
/// A node whose directory was replaced has lost its vote and the records that it acknowledged, so it is another
/// replica. A key from a source older than KIP-853 has no directory id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplicaKey {
    pub id: BrokerId,
    pub directory_id: Option<Uuid>,
}

impl ReplicaKey {
    /// A key from the wire, where the zero uuid stands for an unknown directory.
    pub fn new(id: BrokerId, directory_id: Uuid) -> Self {
        Self { id, directory_id: (!directory_id.is_zero()).then_some(directory_id) }
    }

    /// The directory id for the wire: zero if unknown.
    pub fn directory_id_or_zero(&self) -> Uuid {
        self.directory_id.unwrap_or(Uuid::ZERO)
    }

    /// Whether `other` is this replica. A key without a directory id matches any directory.
    pub fn matches(&self, other: &Self) -> bool {
        self.id == other.id
            && (self.directory_id.is_none() || self.directory_id == other.directory_id)
    }
}

impl fmt::Display for ReplicaKey {
    /// As in Kafka's error messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplicaKey(id={}, directoryId=", self.id)?;
        match self.directory_id {
            Some(directory_id) => write!(f, "{directory_id})"),
            None => f.write_str("<undefined>)"),
        }
    }
}

/// The host and port of a listener.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    pub host: ByteString,
    pub port: u16,
}

/// A node's addresses by listener name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints(BTreeMap<ByteString, Address>);

impl Endpoints {
    pub fn new(endpoints: impl IntoIterator<Item = (ByteString, Address)>) -> Self {
        Self(endpoints.into_iter().collect())
    }

    pub fn single(listener: ByteString, address: Address) -> Self {
        Self::new([(listener, address)])
    }

    pub fn address(&self, listener: &ByteString) -> Option<&Address> {
        self.0.get(listener)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&ByteString, &Address)> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Endpoints {
    /// As in Kafka's error messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Endpoints(endpoints={")?;
        for (index, (name, address)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            let Address { host, port } = address;
            write!(f, "{separator}ListenerName({name})={host}/<unresolved>:{port}")?;
        }
        f.write_str("})")
    }
}

/// The levels of the feature `kraft.version` that a node supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KRaftVersionRange {
    pub min: i16,
    pub max: i16,
}

impl KRaftVersionRange {
    /// The levels that this implementation supports: static voters (0) and KIP-853 (1).
    pub const SUPPORTED: Self = Self { min: 0, max: 1 };

    pub const fn contains(&self, level: i16) -> bool {
        self.min <= level && level <= self.max
    }
}

/// One voter: its key, endpoints and supported levels of kraft.version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    pub key: ReplicaKey,
    pub endpoints: Endpoints,
    pub supported_kraft_version: KRaftVersionRange,
}

/// The voters of the quorum by node id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VoterSet(BTreeMap<BrokerId, Voter>);

impl VoterSet {
    pub fn new(voters: impl IntoIterator<Item = Voter>) -> Self {
        Self(voters.into_iter().map(|voter| (voter.key.id, voter)).collect())
    }

    /// The voters of `controller.quorum.voters`: directories unknown, kraft.version 0.
    pub fn from_static(
        listener: &ByteString,
        voters: impl IntoIterator<Item = (BrokerId, Address)>,
    ) -> Self {
        Self::new(voters.into_iter().map(|(id, address)| Voter {
            key: ReplicaKey { id, directory_id: None },
            endpoints: Endpoints::single(listener.clone(), address),
            supported_kraft_version: KRaftVersionRange { min: 0, max: 0 },
        }))
    }

    pub fn get(&self, id: BrokerId) -> Option<&Voter> {
        self.0.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Voter> {
        self.0.values()
    }

    pub fn ids(&self) -> impl Iterator<Item = BrokerId> {
        self.0.keys().copied()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The voters' keys as in Kafka's error messages.
    pub fn display_keys(&self) -> String {
        let keys: Vec<String> = self.iter().map(|voter| voter.key.to_string()).collect();
        format!("[{}]", keys.join(", "))
    }

    /// The number of voters that is a majority.
    pub fn majority(&self) -> usize {
        self.0.len() / 2 + 1
    }

    pub fn is_voter(&self, key: &ReplicaKey) -> bool {
        self.0.get(&key.id).is_some_and(|voter| voter.key.matches(key))
    }

    pub fn is_only_voter(&self, key: &ReplicaKey) -> bool {
        self.0.len() == 1 && self.is_voter(key)
    }

    /// The set with one more voter; None if a voter has that id already.
    pub fn with_added(&self, voter: Voter) -> Option<Self> {
        if self.0.contains_key(&voter.key.id) {
            return None;
        }
        let mut voters = self.0.clone();
        voters.insert(voter.key.id, voter);
        Some(Self(voters))
    }

    /// The set without the voter of exactly this key; None if there is no such voter, or no other one.
    pub fn without(&self, key: &ReplicaKey) -> Option<Self> {
        let voter = self.0.get(&key.id)?;
        if voter.key != *key || self.0.len() == 1 {
            return None;
        }
        let mut voters = self.0.clone();
        voters.remove(&key.id);
        Some(Self(voters))
    }

    /// Whether the set's entry of this voter is out of date.
    pub fn needs_update(&self, voter: &Voter) -> bool {
        self.is_voter(&voter.key) && self.0.get(&voter.key.id) != Some(voter)
    }

    /// The set with the voter of the same id replaced by `voter`, whatever its directory id; None if there is none.
    /// Used before kraft.version 1, which has no directory ids.
    pub fn with_updated_id(&self, voter: Voter) -> Option<Self> {
        let mut voters = self.0.clone();
        voters.insert(voter.key.id, voter)?;
        Some(Self(voters))
    }

    /// The set with the voter of the same key replaced by `voter`; None if there is none.
    pub fn with_updated(&self, voter: Voter) -> Option<Self> {
        if !self.is_voter(&voter.key) {
            return None;
        }
        let mut voters = self.0.clone();
        voters.insert(voter.key.id, voter);
        Some(Self(voters))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(byte: u8) -> Uuid {
        Uuid::from_bytes([byte; 16])
    }

    fn voters(ids: &[BrokerId]) -> VoterSet {
        VoterSet::from_static(
            &"CONTROLLER".into(),
            ids.iter().map(|&id| (id, Address { host: "localhost".into(), port: 9093 })),
        )
    }

    #[test]
    fn a_voter_without_a_directory_id_matches_any_directory_and_a_known_one_only_itself() {
        let unknown = ReplicaKey::new(1, Uuid::ZERO);
        let known = ReplicaKey::new(1, directory(7));
        assert!(unknown.matches(&known));
        assert!(known.matches(&known));
        assert!(!known.matches(&unknown));
        assert!(!known.matches(&ReplicaKey::new(1, directory(8))));
        assert!(!unknown.matches(&ReplicaKey::new(2, Uuid::ZERO)));
    }

    fn voter(id: BrokerId, byte: u8) -> Voter {
        Voter {
            key: ReplicaKey::new(id, directory(byte)),
            endpoints: Endpoints::default(),
            supported_kraft_version: KRaftVersionRange::SUPPORTED,
        }
    }

    #[test]
    fn one_voter_at_a_time_comes_goes_or_moves() {
        let two = VoterSet::new([voter(1, 1), voter(2, 2)]);
        assert_eq!(two.with_added(voter(2, 9)), None);
        let three = two.with_added(voter(3, 3)).unwrap();
        assert_eq!(three.without(&voter(3, 3).key), Some(two.clone()));
        assert_eq!(three.without(&voter(3, 9).key), None);
        let one = two.without(&voter(2, 2).key).unwrap();
        assert_eq!(one.without(&voter(1, 1).key), None, "the last voter stays");

        let moved = Voter {
            endpoints: Endpoints::single("A".into(), Address { host: "b".into(), port: 1 }),
            ..voter(2, 2)
        };
        assert!(two.needs_update(&moved) && !two.needs_update(&voter(2, 2)));
        assert!(!two.needs_update(&voter(2, 9)));
        assert_eq!(two.with_updated(moved.clone()).unwrap().get(2), Some(&moved));
        assert_eq!(two.with_updated(voter(2, 9)), None);
        assert_eq!(two.with_updated_id(voter(2, 9)).unwrap().get(2), Some(&voter(2, 9)));
        assert_eq!(two.with_updated_id(voter(3, 3)), None);
    }

    #[test]
    fn a_majority_is_more_than_half() {
        assert_eq!(voters(&[1]).majority(), 1);
        assert_eq!(voters(&[1, 2]).majority(), 2);
        assert_eq!(voters(&[1, 2, 3]).majority(), 2);
        assert_eq!(voters(&[1, 2, 3, 4, 5]).majority(), 3);
    }
}
