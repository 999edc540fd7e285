//! A node's role in its cluster: `process.roles`, `node.id`, the voters of the quorum.

use std::collections::BTreeMap;

use klamm_metadata::config_def::BrokerConfigs;
use klamm_metadata::config_def::host_port::{HostPort, parse_bootstrap_servers, parse_voters};
use klamm_protocol::ids::BrokerId;

/// The roles of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessRoles {
    pub broker: bool,
    pub controller: bool,
}

impl ProcessRoles {
    /// Parses `process.roles`. The table has refused other values.
    pub fn new(configs: &BrokerConfigs) -> Self {
        let roles = configs.list("process.roles").unwrap_or_default();
        let has = |role: &str| roles.iter().any(|entry| entry == role);
        Self { broker: has("broker"), controller: has("controller") }
    }

    fn name(self) -> &'static str {
        match (self.broker, self.controller) {
            (true, true) => "broker,controller",
            (true, false) => "broker",
            (false, true) => "controller",
            (false, false) => "nothing",
        }
    }
}

/// The controllers of the quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumMembers {
    /// `controller.quorum.voters`: a static quorum. Empty if the voters are in the log.
    pub voters: BTreeMap<BrokerId, HostPort>,
    /// `controller.quorum.bootstrap.servers`.
    pub bootstrap_servers: Vec<HostPort>,
}

/// Why the roles are invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    #[error("process.roles is '{}'; a node is a broker, a controller or both", .0.name())]
    NoRole(ProcessRoles),
    #[error(
        "process.roles is broker, and nothing says where the controllers are; set controller.quorum.bootstrap.servers to their host:port"
    )]
    NoControllers,
    #[error(
        "node.id is {node_id}, which controller.quorum.voters names as a controller, and process.roles is broker; add controller to process.roles, or use another node.id"
    )]
    VoterWithoutRole { node_id: BrokerId },
    #[error(
        "node.id is {node_id}, which controller.quorum.voters does not have; a controller is one of the voters"
    )]
    NotAVoter { node_id: BrokerId },
    #[error(
        "node.id is {node_id} and broker.id is {broker_id}; they are the same thing, set node.id"
    )]
    TwoIds { node_id: BrokerId, broker_id: BrokerId },
    #[error("broker.id is {0}; a node has an id of 0 or more, set node.id")]
    NegativeId(BrokerId),
}

impl RoleError {
    /// The keys of the error, to name their origins.
    pub fn keys(&self) -> &'static [&'static str] {
        match self {
            Self::NoRole(_) | Self::NoControllers => &["process.roles"],
            Self::VoterWithoutRole { .. } => &["process.roles", "controller.quorum.voters"],
            Self::NotAVoter { .. } => &["node.id", "broker.id", "controller.quorum.voters"],
            Self::TwoIds { .. } | Self::NegativeId(_) => &["node.id", "broker.id"],
        }
    }
}

impl QuorumMembers {
    /// Parses the members. The table has refused invalid texts.
    pub fn new(configs: &BrokerConfigs) -> Self {
        let list = |name| configs.list(name).unwrap_or_default();
        let (voters, servers) = ("controller.quorum.voters", "controller.quorum.bootstrap.servers");
        Self {
            voters: parse_voters(voters, &list(voters)).expect("the table checks voters"),
            bootstrap_servers: parse_bootstrap_servers(servers, &list(servers))
                .expect("the table checks bootstrap servers"),
        }
    }
}

/// Parses the node's id.
pub fn node_id(configs: &BrokerConfigs) -> Result<BrokerId, RoleError> {
    let (node_id, broker_id) = (configs.int("node.id"), configs.int("broker.id"));
    if node_id != broker_id {
        return Err(RoleError::TwoIds { node_id, broker_id });
    }
    if node_id < 0 { Err(RoleError::NegativeId(node_id)) } else { Ok(node_id) }
}

/// Checks roles, node id and voters against each other.
pub fn check(
    node_id: BrokerId,
    roles: ProcessRoles,
    members: &QuorumMembers,
) -> Result<(), RoleError> {
    let is_voter = members.voters.contains_key(&node_id);
    match (roles.broker, roles.controller) {
        (false, false) => Err(RoleError::NoRole(roles)),
        (_, true) if !members.voters.is_empty() && !is_voter => {
            Err(RoleError::NotAVoter { node_id })
        }
        (true, false) if is_voter => Err(RoleError::VoterWithoutRole { node_id }),
        (true, false) if members.voters.is_empty() && members.bootstrap_servers.is_empty() => {
            Err(RoleError::NoControllers)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(pairs: &[(&str, &str)]) -> Result<BrokerId, RoleError> {
        let statics = pairs.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
        let configs = BrokerConfigs::new(statics).unwrap();
        let id = node_id(&configs)?;
        check(id, ProcessRoles::new(&configs), &QuorumMembers::new(&configs)).map(|()| id)
    }

    const COMBINED: (&str, &str) = ("process.roles", "broker, controller");
    const BROKER: (&str, &str) = ("process.roles", "broker");

    #[test]
    fn one_combined_node_is_taken_in_all_its_spellings() {
        assert_eq!(checked(&[COMBINED, ("node.id", "1")]), Ok(1));
        assert_eq!(
            checked(&[COMBINED, ("broker.id", "2"), ("controller.quorum.voters", "2@a:9093")]),
            Ok(2)
        );
        let servers = ("controller.quorum.bootstrap.servers", "a:9093");
        assert_eq!(checked(&[COMBINED, ("node.id", "0"), servers]), Ok(0));
    }

    #[test]
    fn brokers_and_controllers_may_be_nodes_of_their_own() {
        let voters = ("controller.quorum.voters", "1@a:1,2@b:1");
        let servers = ("controller.quorum.bootstrap.servers", "a:1,b:1");
        assert_eq!(checked(&[BROKER, ("node.id", "3"), voters]), Ok(3));
        assert_eq!(checked(&[BROKER, ("node.id", "3"), servers]), Ok(3));
        assert_eq!(checked(&[("process.roles", "controller"), ("node.id", "1"), voters]), Ok(1));
    }

    #[test]
    fn a_broker_knows_where_its_controllers_are_and_is_none_of_them() {
        assert_eq!(checked(&[BROKER, ("node.id", "1")]), Err(RoleError::NoControllers));
        assert_eq!(
            checked(&[BROKER, ("node.id", "1"), ("controller.quorum.voters", "1@a:1,2@b:1")]),
            Err(RoleError::VoterWithoutRole { node_id: 1 })
        );
    }

    #[test]
    fn a_node_has_one_id_and_a_controller_is_a_voter() {
        assert_eq!(
            checked(&[COMBINED, ("node.id", "1"), ("broker.id", "2")]),
            Err(RoleError::TwoIds { node_id: 1, broker_id: 2 })
        );
        assert_eq!(
            checked(&[COMBINED, ("node.id", "1"), ("controller.quorum.voters", "2@b:1")]),
            Err(RoleError::NotAVoter { node_id: 1 })
        );
    }
}
