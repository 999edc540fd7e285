//! The first voters of a dynamic quorum (KIP-853), as `--initial-controllers` names them.
//!
//! Source: `DynamicVoter`, `DynamicVoters`.

use std::net::Ipv6Addr;

use klamm_protocol::Uuid;
use klamm_protocol::ids::BrokerId;
use klamm_protocol::messages::voters_record::{Endpoint, KRaftVersionFeature, Voter, VotersRecord};

/// The levels of kraft.version that a voter's record says it supports.
const KRAFT_VERSIONS: KRaftVersionFeature =
    KRaftVersionFeature { min_supported_version: 0, max_supported_version: 1 };

/// One voter: `id@host:port:directory`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialVoter {
    pub node_id: BrokerId,
    pub host: String,
    pub port: u16,
    pub directory_id: Uuid,
}

/// Why a list of voters is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VoterError {
    #[error(
        "'{entry}' in --initial-controllers has no valid {part}; write id@host:port:directory, as in 1@localhost:9093:JEXY6aqzQY-32P5TStzaFg"
    )]
    Malformed { entry: String, part: VoterPart },
    #[error("--initial-controllers names node {0} twice")]
    Duplicate(BrokerId),
    #[error("--initial-controllers names nobody")]
    Empty,
}

/// A part of `id@host:port:directory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VoterPart {
    #[error("node id")]
    NodeId,
    #[error("host")]
    Host,
    #[error("port")]
    Port,
    #[error("directory id")]
    DirectoryId,
}

/// Parses a comma-separated list; returns it sorted by node id.
pub fn parse_voters(text: &str) -> Result<Vec<InitialVoter>, VoterError> {
    let entries = text.split(',').filter(|entry| !entry.trim().is_empty());
    let mut voters = entries.map(parse_voter).collect::<Result<Vec<_>, _>>()?;
    voters.sort_by_key(|voter| voter.node_id);
    if let Some(pair) = voters.windows(2).find(|pair| pair[0].node_id == pair[1].node_id) {
        return Err(VoterError::Duplicate(pair[0].node_id));
    }
    if voters.is_empty() { Err(VoterError::Empty) } else { Ok(voters) }
}

fn parse_voter(entry: &str) -> Result<InitialVoter, VoterError> {
    let wrong = |part| VoterError::Malformed { entry: entry.trim().to_owned(), part };
    let (id, rest) = entry.trim().split_once('@').ok_or_else(|| wrong(VoterPart::NodeId))?;
    let node_id = id.parse().ok().filter(|id| *id >= 0).ok_or_else(|| wrong(VoterPart::NodeId))?;
    let (host, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once("]:"),
        None => rest.split_once(':'),
    }
    .filter(|(host, _)| !host.is_empty())
    .ok_or_else(|| wrong(VoterPart::Host))?;
    let (port, directory_id) = rest.split_once(':').ok_or_else(|| wrong(VoterPart::Port))?;
    Ok(InitialVoter {
        node_id,
        host: host.to_owned(),
        port: port.parse().map_err(|_| wrong(VoterPart::Port))?,
        directory_id: directory_id.parse().map_err(|_| wrong(VoterPart::DirectoryId))?,
    })
}

/// Java writes an IPv6 address with all its groups: `::1` is `0:0:0:0:0:0:0:1`.
fn written_host(host: &str) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(address) => address.segments().map(|group| format!("{group:x}")).join(":"),
        Err(_) => host.to_owned(),
    }
}

/// The voters as the quorum's control record.
pub fn voters_record(voters: &[InitialVoter], controller_listener_name: &str) -> VotersRecord {
    let voters = voters
        .iter()
        .map(|voter| Voter {
            voter_id: voter.node_id,
            voter_directory_id: voter.directory_id,
            endpoints: vec![Endpoint {
                name: controller_listener_name.into(),
                host: written_host(&voter.host).into(),
                port: voter.port,
            }],
            k_raft_version_feature: KRAFT_VERSIONS,
        })
        .collect();
    VotersRecord { version: 0, voters }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTORY: &str = "JEXY6aqzQY-32P5TStzaFg";

    #[test]
    fn voters_are_read_and_sorted() {
        let text = format!("2@[::1]:9094:{DIRECTORY}, 1@a.example:9093:{DIRECTORY}");
        let voters = parse_voters(&text).unwrap();
        assert_eq!(
            (voters[0].node_id, voters[0].host.as_str(), voters[0].port),
            (1, "a.example", 9093)
        );
        assert_eq!((voters[1].node_id, voters[1].host.as_str(), voters[1].port), (2, "::1", 9094));
        assert_eq!(voters[0].directory_id.to_string(), DIRECTORY);
    }

    #[test]
    fn addresses_are_written_as_java_writes_them() {
        assert_eq!(written_host("::1"), "0:0:0:0:0:0:0:1");
        assert_eq!(written_host("fe80::00a1"), "fe80:0:0:0:0:0:0:a1");
        assert_eq!(written_host("127.0.0.1"), "127.0.0.1");
        assert_eq!(written_host("a.example"), "a.example");
    }

    #[test]
    fn the_part_that_is_wrong_is_named() {
        let part = |text: &str| match parse_voters(text) {
            Err(VoterError::Malformed { part, .. }) => part,
            other => panic!("{other:?}"),
        };
        assert_eq!(part("a:1:x"), VoterPart::NodeId);
        assert_eq!(part("-1@a:1:x"), VoterPart::NodeId);
        assert_eq!(part("1@"), VoterPart::Host);
        assert_eq!(part("1@[::1:1:x"), VoterPart::Host);
        assert_eq!(part("1@a:9093"), VoterPart::Port);
        assert_eq!(part("1@a:70000:x"), VoterPart::Port);
        assert_eq!(part("1@a:1:x"), VoterPart::DirectoryId);
    }

    #[test]
    fn a_node_votes_once_and_somebody_votes() {
        let twice = format!("1@a:1:{DIRECTORY},1@b:1:{DIRECTORY}");
        assert_eq!(parse_voters(&twice), Err(VoterError::Duplicate(1)));
        assert_eq!(parse_voters(" , "), Err(VoterError::Empty));
    }
}
