//! What a node does in its cluster: `process.roles`, `node.id`, the voters of the quorum.

use std::collections::BTreeMap;

use klamm_metadata::config_def::BrokerConfigs;
use klamm_metadata::config_def::host_port::{HostPort, parse_bootstrap_servers, parse_voters};
use klamm_protocol::ids::BrokerId;

/// Which roles a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessRoles {
    pub broker: bool,
    pub controller: bool,
}

impl ProcessRoles {
    /// Reads `process.roles`. The table has seen to it that nothing else is named.
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

/// Which controllers form the quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumMembers {
    /// `controller.quorum.voters`: a static quorum. Empty where the voters are in the log.
    pub voters: BTreeMap<BrokerId, HostPort>,
    /// `controller.quorum.bootstrap.servers`.
    pub bootstrap_servers: Vec<HostPort>,
}

/// Why a node cannot take its place in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    #[error(
        "process.roles is '{}', and this version of Klamm runs combined nodes only; set process.roles=broker,controller",
        .0.name()
    )]
    NotCombined(ProcessRoles),
    #[error(
        "controller.quorum.voters names {count} nodes, and this version of Klamm runs a quorum of one; name this node only"
    )]
    ManyVoters { count: usize },
    #[error(
        "controller.quorum.bootstrap.servers names {count} controllers, and this version of Klamm runs a quorum of one; name this node only"
    )]
    ManyBootstrapServers { count: usize },
    #[error(
        "node.id is {node_id}, which controller.quorum.voters does not have; a controller is one of the voters"
    )]
    NotAVoter { node_id: BrokerId },
    #[error(
        "controller.quorum.auto.join.enable is true, and this version of Klamm runs a quorum of one; set it to false"
    )]
    AutoJoin,
    #[error(
        "node.id is {node_id} and broker.id is {broker_id}; they are the same thing, set node.id"
    )]
    TwoIds { node_id: BrokerId, broker_id: BrokerId },
    #[error("broker.id is {0}; a node has an id of 0 or more, set node.id")]
    NegativeId(BrokerId),
}

impl RoleError {
    /// The keys that play a part, for pointing at where they are set.
    pub fn keys(&self) -> &'static [&'static str] {
        match self {
            Self::NotCombined(_) => &["process.roles"],
            Self::ManyVoters { .. } => &["controller.quorum.voters"],
            Self::ManyBootstrapServers { .. } => &["controller.quorum.bootstrap.servers"],
            Self::NotAVoter { .. } => &["node.id", "broker.id", "controller.quorum.voters"],
            Self::AutoJoin => &["controller.quorum.auto.join.enable"],
            Self::TwoIds { .. } | Self::NegativeId(_) => &["node.id", "broker.id"],
        }
    }
}

impl QuorumMembers {
    /// Reads the members. The table has seen to it that the texts parse.
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

/// Reads the node's id.
pub fn node_id(configs: &BrokerConfigs) -> Result<BrokerId, RoleError> {
    let (node_id, broker_id) = (configs.int("node.id"), configs.int("broker.id"));
    if node_id != broker_id {
        return Err(RoleError::TwoIds { node_id, broker_id });
    }
    if node_id < 0 { Err(RoleError::NegativeId(node_id)) } else { Ok(node_id) }
}

/// Refuses what makes sense in a cluster of many nodes only. Formatting does not ask for this.
pub fn check_single_node(
    configs: &BrokerConfigs,
    node_id: BrokerId,
    roles: ProcessRoles,
    members: &QuorumMembers,
) -> Result<(), RoleError> {
    if !(roles.broker && roles.controller) {
        return Err(RoleError::NotCombined(roles));
    }
    if !members.voters.is_empty() && !members.voters.contains_key(&node_id) {
        return Err(RoleError::NotAVoter { node_id });
    }
    if members.voters.len() > 1 {
        return Err(RoleError::ManyVoters { count: members.voters.len() });
    }
    if members.bootstrap_servers.len() > 1 {
        return Err(RoleError::ManyBootstrapServers { count: members.bootstrap_servers.len() });
    }
    if configs.boolean("controller.quorum.auto.join.enable") {
        return Err(RoleError::AutoJoin);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(&str, &str)]) -> Result<BrokerId, RoleError> {
        let statics = pairs.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
        let configs = BrokerConfigs::new(statics).unwrap();
        let id = node_id(&configs)?;
        let (roles, members) = (ProcessRoles::new(&configs), QuorumMembers::new(&configs));
        check_single_node(&configs, id, roles, &members).map(|()| id)
    }

    const COMBINED: (&str, &str) = ("process.roles", "broker, controller");

    #[test]
    fn one_combined_node_is_taken_in_all_its_spellings() {
        assert_eq!(check(&[COMBINED, ("node.id", "1")]), Ok(1));
        assert_eq!(
            check(&[COMBINED, ("broker.id", "2"), ("controller.quorum.voters", "2@a:9093")]),
            Ok(2)
        );
        assert_eq!(
            check(&[COMBINED, ("node.id", "0"), ("controller.quorum.bootstrap.servers", "a:9093")]),
            Ok(0)
        );
    }

    #[test]
    fn clusters_of_many_nodes_are_refused_for_now() {
        let roles = ProcessRoles { broker: true, controller: false };
        assert_eq!(
            check(&[("process.roles", "broker"), ("node.id", "1")]),
            Err(RoleError::NotCombined(roles))
        );
        assert_eq!(
            check(&[COMBINED, ("node.id", "1"), ("controller.quorum.voters", "1@a:1,2@b:1")]),
            Err(RoleError::ManyVoters { count: 2 })
        );
        assert_eq!(
            check(&[
                COMBINED,
                ("node.id", "1"),
                ("controller.quorum.bootstrap.servers", "a:1,b:1")
            ]),
            Err(RoleError::ManyBootstrapServers { count: 2 })
        );
        assert_eq!(
            check(&[COMBINED, ("node.id", "1"), ("controller.quorum.auto.join.enable", "true")]),
            Err(RoleError::AutoJoin)
        );
    }

    #[test]
    fn a_node_has_one_id_and_is_a_voter() {
        assert_eq!(
            check(&[COMBINED, ("node.id", "1"), ("broker.id", "2")]),
            Err(RoleError::TwoIds { node_id: 1, broker_id: 2 })
        );
        assert_eq!(
            check(&[COMBINED, ("node.id", "1"), ("controller.quorum.voters", "2@b:1")]),
            Err(RoleError::NotAVoter { node_id: 1 })
        );
    }
}
