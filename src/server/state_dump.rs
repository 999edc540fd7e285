//! The state that a node writes to its log on SIGQUIT: process, threads, quorum, partitions,
//! coordinators, directories. One line each, in the log.
//!
//! Invariant: parts that are least likely to block come first. If a part waits for a lock for ever, the dump ends
//! before it, and its last line shows where.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use klamm_coordinator::group::ListFilter;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::or_minus_one;
use klamm_replication::quorum::QuorumDescription;
use tokio::runtime::Handle;
use tracing::warn;

use crate::api::request_metrics::ApiCounts;
use crate::api::services::Services;
use crate::config::BrokerConfig;
use crate::net::connection_quotas::ConnectionQuotas;
use crate::net::descriptors;

/// How long the controller's thread may take to describe the quorum.
const QUORUM_LIMIT: Duration = Duration::from_secs(2);

/// Weak references to the parts of a running node that are dumped.
#[derive(Debug, Clone)]
pub(crate) struct Inspection {
    services: Weak<Services>,
    quotas: Weak<ConnectionQuotas>,
}

impl Inspection {
    pub(crate) fn new(services: &Arc<Services>, quotas: &Arc<ConnectionQuotas>) -> Self {
        Self { services: Arc::downgrade(services), quotas: Arc::downgrade(quotas) }
    }
}

/// Writes the state of this process and, once it has started, of its node.
#[derive(Debug, Clone)]
pub(crate) struct StateDump {
    name: String,
    began: Instant,
    inspection: Arc<OnceLock<Inspection>>,
}

/// Lines are warnings, so that they appear at almost every log level.
macro_rules! line {
    ($($text:tt)+) => { warn!(target: "klamm::state_dump", $($text)+) };
}

impl StateDump {
    pub(crate) fn new(config: &BrokerConfig) -> Self {
        let name = format!("node {}, {}", config.node_id, role(config));
        Self { name, began: Instant::now(), inspection: Arc::default() }
    }

    /// The node has started.
    pub(crate) fn attach(&self, inspection: Inspection) {
        let attached = self.inspection.set(inspection);
        assert!(attached.is_ok(), "a process runs one node");
    }

    /// Writes everything. `main` is the runtime of the node.
    pub(crate) async fn write(&self, main: &Handle) {
        let (version, up) = (env!("CARGO_PKG_VERSION"), self.began.elapsed().as_secs());
        line!("state of {} (SIGQUIT): klamm {version}, up for {up} s", self.name);
        write_process(main);
        let Some(inspection) = self.inspection.get() else {
            line!("the node is starting");
            return;
        };
        let Some(services) = inspection.services.upgrade() else {
            line!("the node has stopped");
            return;
        };
        if let Some(quotas) = inspection.quotas.upgrade() {
            let (connections, addresses) = quotas.counts();
            line!("connections: {connections}, of {addresses} addresses");
        }
        write_metadata(&services);
        write_quorum(&services).await;
        write_directories(&services);
        write_partitions(&services);
        write_coordinators(&services);
        write_requests(&services);
        line!("end of the state of {}", self.name);
    }
}

fn role(config: &BrokerConfig) -> &'static str {
    match (config.roles.broker, config.roles.controller) {
        (true, true) => "broker and controller",
        (true, false) => "broker",
        _ => "controller",
    }
}

fn write_process(main: &Handle) {
    let resident = proc_field("/proc/self/status", "VmRSS:");
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let limit = descriptors::limit().map_or("any number".to_owned(), |limit| limit.to_string());
    line!("process {}: resident {resident}, {open} of {limit} files open", std::process::id());
    let tasks = main.metrics();
    line!(
        "runtime: {} workers, {} tasks, {} waiting to run",
        tasks.num_workers(),
        tasks.num_alive_tasks(),
        tasks.global_queue_depth()
    );
    for (count, thread) in threads(Path::new("/proc/self/task")) {
        line!("threads: {count} x {thread}");
    }
}

fn proc_field(path: &str, field: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(field));
    value.map_or("unknown".to_owned(), |value| value.trim().to_owned())
}

/// The threads by name, state and kernel wait channel, with the number of equal ones.
fn threads(tasks: &Path) -> Vec<(usize, String)> {
    let mut alike: BTreeMap<String, usize> = BTreeMap::new();
    for task in std::fs::read_dir(tasks).into_iter().flatten().flatten() {
        // A thread may end meanwhile.
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let Some(described) = thread(&stat) else { continue };
        let waits_in = std::fs::read_to_string(task.path().join("wchan")).unwrap_or_default();
        let waits_in = match waits_in.as_str() {
            "" | "0" => String::new(),
            function => format!(" in {function}"),
        };
        *alike.entry(format!("{described}{waits_in}")).or_default() += 1;
    }
    alike.into_iter().map(|(thread, count)| (count, thread)).collect()
}

/// Name and state out of `/proc/[pid]/stat`: `17 (flusher) S ...`. A name may have brackets of its own.
fn thread(stat: &str) -> Option<String> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let state = match after.trim_start().chars().next()? {
        'R' => "running",
        'S' => "sleeping",
        'D' => "waiting for a disk",
        'T' | 't' => "stopped",
        'Z' | 'X' => "ended",
        _ => "idle",
    };
    Some(format!("{name}: {state}"))
}

fn write_metadata(services: &Services) {
    let image = services.metadata_cache.image();
    let brokers = image.brokers.iter();
    let fenced: Vec<String> =
        brokers.filter(|broker| broker.fenced).map(|broker| broker.id.to_string()).collect();
    line!(
        "metadata of cluster {}: offset {}, metadata.version {}, {} brokers, fenced [{}], {} topics",
        services.cluster_id,
        image.end_offset,
        image.metadata_version(),
        image.brokers.len(),
        fenced.join(", "),
        image.topics.len()
    );
    if services.config.roles.broker {
        let confirmed =
            if services.session.has_valid_lease() { "confirmed" } else { "not confirmed" };
        line!(
            "registration: broker epoch {}, {confirmed} by the controller",
            or_minus_one(services.session.broker_epoch())
        );
    }
}

async fn write_quorum(services: &Services) {
    let leader = services.controller.leader().borrow().clone();
    let name = leader.id.map_or("nobody".to_owned(), |id| format!("node {id}"));
    let here = if leader.is_active_here { ", this node is the active controller" } else { "" };
    line!("quorum: epoch {}, led by {name}{here}", leader.epoch);
    if !leader.is_active_here {
        return;
    }
    match tokio::time::timeout(QUORUM_LIMIT, services.controller.describe_quorum()).await {
        Ok(Ok(description)) => write_replicas_of_quorum(&description),
        Ok(Err(error)) => line!("quorum: not described: {}", error.message()),
        Err(_) => line!("quorum: the controller's thread does not answer"),
    }
}

fn write_replicas_of_quorum(quorum: &QuorumDescription) {
    let high_watermark = quorum.high_watermark.map_or("none".to_owned(), |at| at.to_string());
    line!("quorum: high watermark {high_watermark}");
    let voters = quorum.voters.iter().map(|replica| ("voter", replica));
    let observers = quorum.observers.iter().map(|replica| ("observer", replica));
    for (kind, replica) in voters.chain(observers) {
        let end = replica.end_offset.map_or("unknown".to_owned(), |offset| offset.to_string());
        line!("quorum: {kind} {}, log end offset {end}", replica.key.id);
    }
}

fn write_directories(services: &Services) {
    for directory in services.replicas.log_manager.directories() {
        let path = directory.absolute_path();
        match directory.space {
            Some(space) => line!(
                "log directory {path}: online, {} of {} bytes free",
                space.usable_bytes,
                space.total_bytes
            ),
            None => line!("log directory {path}: offline"),
        }
    }
}

fn write_partitions(services: &Services) {
    let here = services.replicas.partitions.all();
    let led = here.iter().filter(|partition| partition.is_leader()).count();
    let offline = here.iter().filter(|partition| partition.is_offline()).count();
    line!("partitions here: {}, {led} led, {offline} offline", here.len());
    let image = services.metadata_cache.image();
    let (mut leaderless, mut under_replicated) = (0, 0);
    for (_, _, partition) in image.topics.all_partitions() {
        leaderless += usize::from(!partition.has_leader());
        under_replicated += usize::from(partition.isr.len() < partition.replicas.len());
    }
    line!(
        "partitions of the cluster: {leaderless} without a leader, {under_replicated} with replicas out of sync"
    );
}

fn write_coordinators(services: &Services) {
    match services.groups.list(&ListFilter::default()) {
        Ok(groups) => {
            let mut states: BTreeMap<String, usize> = BTreeMap::new();
            for group in &groups {
                *states.entry(group.group_state.to_string()).or_default() += 1;
            }
            let states: Vec<String> =
                states.iter().map(|(state, count)| format!("{count} {state}")).collect();
            line!("groups coordinated here: {} ({})", groups.len(), states.join(", "));
        }
        Err(error) => line!("groups coordinated here: {}", error.message()),
    }
    let slots = services.config.replication.max_incremental_fetch_session_cache_slots;
    line!("fetch sessions: {} of {slots}", services.fetch_sessions.len());
}

fn write_requests(services: &Services) {
    for ApiCounts { name, requests, errors } in services.request_metrics.counts() {
        let errors = errors.into_iter().map(|(code, count)| match ErrorCode::from_code(code) {
            Some(error) => format!(", {count} x {error}"),
            None => format!(", {count} x error {code}"),
        });
        line!("requests: {requests} x {name}{}", errors.collect::<String>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_a_name_and_a_state() {
        assert_eq!(thread("17 (flusher) S 1 2").as_deref(), Some("flusher: sleeping"));
        assert_eq!(thread("17 (a) b) D 1").as_deref(), Some("a) b: waiting for a disk"));
        assert_eq!(thread("17 (publisher) R").as_deref(), Some("publisher: running"));
        assert_eq!(thread(""), None);
    }

    #[test]
    fn threads_that_are_alike_are_counted() {
        let found = threads(Path::new("/proc/self/task"));
        assert!(found.iter().map(|(count, _)| count).sum::<usize>() >= 1, "{found:?}");
        assert_eq!(threads(Path::new("/no/such/place")), []);
    }
}
