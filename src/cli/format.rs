//! `klamm format`: prepares log directories as `kafka-storage.sh format` of Apache Kafka 4.3.1
//! does, file for file and record for record, but for features that Klamm does not serve: a cluster gets them only if
//! flags ask for them.
//!
//! The broker formats empty directories by itself; this command is for clusters of many nodes and
//! for scripts that call it.

use std::path::PathBuf;

use clap::Args;
use klamm_log::disk::RealDisk;
use klamm_protocol::Uuid;

use crate::clock::wall_ms;
use crate::config::{BrokerConfig, Environment, Loaded, Sources};
use crate::random;

pub mod checkpoint;
pub mod directories;
pub mod features;
pub mod voters;

use super::{Console, ExitStatus, print};
use directories::{FormatError, Formatter};
use features::{FeatureError, FeatureRequest};
use voters::{InitialVoter, VoterError, parse_voters};

/// The flags of `kafka-storage.sh format`.
#[derive(Debug, Clone, Args)]
pub struct FormatArguments {
    /// The cluster's id. `klamm random-uuid` makes one up.
    #[arg(long, short = 't', value_name = "ID")]
    pub cluster_id: String,
    /// Kafka's server.properties.
    #[arg(long, short = 'c', value_name = "FILE")]
    pub config: PathBuf,
    /// The level of one feature, as in kraft.version=1. May come more than once.
    #[arg(long, short = 'f', value_name = "NAME=LEVEL")]
    pub feature: Vec<String>,
    /// The Kafka release whose features the cluster starts with.
    #[arg(long, short = 'r', value_name = "RELEASE")]
    pub release_version: Option<String>,
    /// Leave alone what is formatted already.
    #[arg(long, short = 'g')]
    pub ignore_formatted: bool,
    /// SCRAM credentials to start with. Not there yet.
    #[arg(long, short = 'S', value_name = "CREDENTIAL")]
    pub add_scram: Vec<String>,
    /// This controller is the first and only voter.
    #[arg(long, short = 's', group = "quorum")]
    pub standalone: bool,
    /// The voters are decided later, or elsewhere.
    #[arg(long, short = 'N', group = "quorum")]
    pub no_initial_controllers: bool,
    /// The first voters: id@host:port:directory,... the same for every node.
    #[arg(long, short = 'I', group = "quorum", value_name = "VOTERS")]
    pub initial_controllers: Option<String>,
    /// Set one key, over the file and the environment.
    #[arg(long = "override", value_name = "KEY=VALUE", value_parser = super::parse_override)]
    pub overrides: Vec<(String, String)>,
}

/// Why the flags of `klamm format` are refused.
#[derive(Debug, thiserror::Error)]
pub enum FormatRequestError {
    #[error(
        "--add-scram is not there yet: this version of Klamm serves PLAINTEXT listeners only; leave it out"
    )]
    Scram,
    #[error("--cluster-id is empty; `klamm random-uuid` makes one up")]
    NoClusterId,
    #[error(
        "You cannot specify controller.quorum.voters and format the node with --initial-controllers or --standalone. If you want to use dynamic quorum, please remove controller.quorum.voters and specify controller.quorum.bootstrap.servers instead."
    )]
    StaticAndDynamicVoters,
    #[error(
        "Because controller.quorum.voters is not set on this controller, you must specify one of the following: --standalone, --initial-controllers, or --no-initial-controllers."
    )]
    NoVoters,
    #[error(
        "If using process.roles, either controller.quorum.bootstrap.servers must contain the set of bootstrap controllers or controller.quorum.voters must contain a parseable set of controllers."
    )]
    NoQuorum,
    #[error("You can only use --standalone on a controller.")]
    StandaloneBroker,
    #[error(transparent)]
    Voters(#[from] VoterError),
    #[error(transparent)]
    Features(#[from] FeatureError),
}

impl FormatArguments {
    pub(super) fn run(self, environment: Environment, console: &mut Console<'_>) -> ExitStatus {
        let sources = Sources {
            file: Some(self.config.clone()),
            environment,
            overrides: self.overrides.clone(),
        };
        let loaded = match Loaded::from_sources(&sources) {
            Ok(loaded) => loaded,
            Err(error) => {
                console.complain(error);
                return ExitStatus::Usage;
            }
        };
        let formatter = match self.formatter(&loaded.config) {
            Ok(formatter) => formatter,
            Err(error) => {
                console.complain(error);
                return ExitStatus::Usage;
            }
        };
        for (name, level) in formatter.features.not_served() {
            console.complain(format_args!(
                "{name}={level} is written as asked, and does not work with this version of Klamm: a Klamm controller leaves it \
                 out when the cluster begins, and a Klamm broker cannot join a cluster that has it"
            ));
        }
        match formatter.format(&RealDisk, wall_ms()) {
            Ok(done) => print(console, &done.to_string()),
            Err(error @ FormatError::AlreadyFormatted { .. }) => {
                console.complain(error);
                ExitStatus::Runtime
            }
            Err(error) => {
                console.complain(error);
                ExitStatus::DataDirectory
            }
        }
    }

    /// Makes the formatter from flags and configuration.
    pub fn formatter(&self, config: &BrokerConfig) -> Result<Formatter, FormatRequestError> {
        if !self.add_scram.is_empty() {
            return Err(FormatRequestError::Scram);
        }
        if self.cluster_id.trim().is_empty() {
            return Err(FormatRequestError::NoClusterId);
        }
        let has_static_voters = !config.quorum_members.voters.is_empty();
        let names_nobody = !has_static_voters && config.quorum_members.bootstrap_servers.is_empty();
        // A node whose configuration names no other node is its own quorum, as when it starts on empty directories.
        let is_alone = names_nobody && config.is_alone() && !self.names_quorum();
        if names_nobody && !is_alone {
            return Err(FormatRequestError::NoQuorum);
        }
        let initial_voters = match is_alone {
            true => None,
            false => self.initial_voters(config, has_static_voters)?,
        };
        let features = FeatureRequest {
            levels: features::parse_levels(&self.feature)?,
            release: self.release_version.as_deref(),
            has_dynamic_quorum: !has_static_voters,
        };
        Ok(Formatter {
            cluster_id: self.cluster_id.clone(),
            node_id: config.node_id,
            log_dirs: config.storage.log_dirs.clone(),
            metadata_log_dir: config.storage.metadata_log_dir.clone(),
            features: features.resolve()?,
            initial_voters,
            controller_listener_name: config
                .listeners
                .controller_listener_names
                .first()
                .cloned()
                .unwrap_or_default(),
            ignore_formatted: self.ignore_formatted,
        })
    }

    fn names_quorum(&self) -> bool {
        self.standalone || self.no_initial_controllers || self.initial_controllers.is_some()
    }

    fn initial_voters(
        &self,
        config: &BrokerConfig,
        has_static_voters: bool,
    ) -> Result<Option<Vec<InitialVoter>>, FormatRequestError> {
        let names_voters = self.standalone || self.initial_controllers.is_some();
        if has_static_voters && names_voters {
            return Err(FormatRequestError::StaticAndDynamicVoters);
        }
        if let Some(text) = &self.initial_controllers {
            return Ok(Some(parse_voters(text)?));
        }
        if self.standalone {
            let voter = standalone_voter(config, random::uuid())?;
            return Ok(Some(vec![voter]));
        }
        if !self.no_initial_controllers && config.roles.controller && !has_static_voters {
            return Err(FormatRequestError::NoVoters);
        }
        Ok(None)
    }
}

/// The only voter of a new cluster: this node, at the address that its first controller listener
/// advertises.
pub fn standalone_voter(
    config: &BrokerConfig,
    directory_id: Uuid,
) -> Result<InitialVoter, FormatRequestError> {
    let endpoint = config
        .listeners
        .advertised_controller
        .first()
        .filter(|_| config.roles.controller)
        .ok_or(FormatRequestError::StandaloneBroker)?;
    Ok(InitialVoter {
        node_id: config.node_id,
        host: endpoint.host.clone().unwrap_or_else(|| "localhost".to_owned()),
        port: endpoint.port,
        directory_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments() -> FormatArguments {
        FormatArguments {
            cluster_id: "Ri2s3BXgSAWZzVxcfUQKSw".into(),
            config: PathBuf::from("unused"),
            feature: Vec::new(),
            release_version: None,
            ignore_formatted: false,
            add_scram: Vec::new(),
            standalone: false,
            no_initial_controllers: false,
            initial_controllers: None,
            overrides: Vec::new(),
        }
    }

    fn config(pairs: &[(&str, &str)]) -> BrokerConfig {
        let overrides =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Loaded::from_sources(&Sources { overrides, ..Sources::default() }).unwrap().config
    }

    fn refusal(arguments: &FormatArguments, pairs: &[(&str, &str)]) -> String {
        arguments.formatter(&config(pairs)).unwrap_err().to_string()
    }

    const DYNAMIC: &[(&str, &str)] = &[("controller.quorum.bootstrap.servers", "localhost:9093")];
    const STATIC: &[(&str, &str)] = &[("controller.quorum.voters", "1@localhost:9093")];

    #[test]
    fn a_standalone_node_is_its_only_voter() {
        let formatter = FormatArguments { standalone: true, ..arguments() }
            .formatter(&config(DYNAMIC))
            .unwrap();
        let voters = formatter.initial_voters.unwrap();
        assert_eq!(
            (voters[0].node_id, voters[0].host.as_str(), voters[0].port),
            (1, "localhost", 9093)
        );
        assert_eq!(formatter.features.kraft_version, 1);
        assert_eq!(formatter.controller_listener_name, "CONTROLLER");
    }

    #[test]
    fn static_voters_need_no_flag_and_bear_none() {
        let formatter = arguments().formatter(&config(STATIC)).unwrap();
        assert_eq!(formatter.initial_voters, None);
        assert_eq!(formatter.features.kraft_version, 0);
        let standalone = FormatArguments { standalone: true, ..arguments() };
        assert!(refusal(&standalone, STATIC).starts_with("You cannot specify controller.quorum"));
    }

    #[test]
    fn a_controller_says_where_its_voters_are() {
        assert!(
            refusal(&arguments(), DYNAMIC).starts_with("Because controller.quorum.voters is not")
        );
        let later = FormatArguments { no_initial_controllers: true, ..arguments() };
        assert_eq!(later.formatter(&config(DYNAMIC)).unwrap().initial_voters, None);
    }

    #[test]
    fn somebody_has_to_be_the_quorum() {
        let standalone = FormatArguments { standalone: true, ..arguments() };
        assert!(refusal(&standalone, &[]).starts_with("If using process.roles, either controller"));
        assert!(arguments().formatter(&config(&[])).is_ok(), "a node of its own is");
    }

    #[test]
    fn scram_is_refused_clearly() {
        let scram = FormatArguments { add_scram: vec!["x".into()], ..arguments() };
        assert!(refusal(&scram, STATIC).starts_with("--add-scram is not there yet"));
    }
}
