//! The process around a broker: runtime, signals, exit status.

use std::time::Duration;

use tracing::{debug, error, info, warn};

use crate::cli::ExitStatus;
use crate::cluster::broker_lifecycle::JoinError;
use crate::config::BrokerConfig;
use crate::net::descriptors;
use crate::server::broker::{Broker, StartError};
use crate::server::signals::{self, StopSignals};
use crate::server::state_dump::StateDump;

/// How long a start may continue after a signal to stop.
const START_END_LIMIT: Duration = Duration::from_secs(2);

/// Runs a broker until a signal or a failure ends it.
pub fn run(config: BrokerConfig) -> ExitStatus {
    log_panics();
    match descriptors::raise_limit() {
        Ok(Some(limit)) => debug!("at most {limit} files can be open"),
        Ok(None) => debug!("any number of files can be open"),
        Err(failure) => warn!("the limit on open files cannot be raised: {failure}"),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(failure) => {
            error!("the runtime cannot be started: {failure}");
            return ExitStatus::Runtime;
        }
    };
    let status = runtime.block_on(serve(config));
    // A blocked task on the blocking pool must not keep a stopped broker alive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    status
}

/// Logs panics with their place; with `RUST_BACKTRACE` they also go to stderr, as usual.
fn log_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let said = panic.payload_as_str().unwrap_or("no words");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        error!("thread {} panicked at {place}: {said}", thread.name().unwrap_or("without a name"));
        if std::env::var_os("RUST_BACKTRACE").is_some() {
            usual(panic);
        }
    }));
}

async fn serve(config: BrokerConfig) -> ExitStatus {
    // Before the start: an operator wants to look into a start that takes long.
    let dump = StateDump::new(&config);
    if let Err(failure) = signals::on_quit(dump.clone()) {
        warn!("SIGQUIT does not dump the state: {failure}");
    }
    let mut stop = StopSignals::new();
    let (started, signalled) = start(config, &mut stop).await;
    let broker = match started {
        Some(Ok(broker)) => broker,
        Some(Err(failure)) => {
            error!("the broker does not start: {failure}");
            return status_of(&failure);
        }
        None => return ExitStatus::Ok,
    };
    dump.attach(broker.inspection());
    for (listener, address) in broker.addresses() {
        info!("listening on {listener}://{address}");
    }
    info!(target: "kafka.server.BrokerServer", "[BrokerServer id={}] Transition from STARTING to STARTED", broker.node_id());
    // Container tests wait for this line of Kafka's.
    info!(target: "kafka.server.BrokerLifecycleManager", "[BrokerLifecycleManager id={}] The broker has been unfenced. Transitioning from RECOVERY to RUNNING.", broker.node_id());
    let status = if signalled { ExitStatus::Ok } else { wait(&broker, &mut stop).await };
    let shutdown = broker.shutdown();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => return status,
            name = stop.next() => warn!("{name} again: the broker is stopping already; only SIGKILL is quicker, and the next start then has to recover the logs"),
        }
    }
}

/// Starts the broker, and returns whether a signal to stop has come meanwhile.
///
/// After the signal the start continues to its end, so that the broker can stop cleanly. If it does not end within
/// `START_END_LIMIT` (it waits for a quorum, or for room on a full disk), it is abandoned: nothing was served yet.
async fn start(
    config: BrokerConfig,
    stop: &mut StopSignals,
) -> (Option<Result<Broker, StartError>>, bool) {
    let starting = Broker::start(config);
    tokio::pin!(starting);
    let name = tokio::select! {
        started = &mut starting => return (Some(started), false),
        name = stop.next() => name,
    };
    info!("{name} asks the broker to stop while it starts");
    let ended = tokio::time::timeout(START_END_LIMIT, starting).await;
    if ended.is_err() {
        warn!("the start is given up: the next one has to recover the logs");
    }
    (ended.ok(), true)
}

/// Waits for a reason to stop.
async fn wait(broker: &Broker, stop: &mut StopSignals) -> ExitStatus {
    tokio::select! {
        name = stop.next() => {
            info!("{name} asks the broker to stop");
            ExitStatus::Ok
        }
        () = broker.failed() => ExitStatus::Runtime,
    }
}

fn status_of(failure: &StartError) -> ExitStatus {
    match failure {
        StartError::Bind { .. } => ExitStatus::Bind,
        StartError::UnknownHost { .. } => ExitStatus::Usage,
        StartError::Store(_) => ExitStatus::DataDirectory,
        StartError::Metadata(_) | StartError::Thread(_) | StartError::Failed => ExitStatus::Runtime,
        StartError::Join(JoinError::Refused { .. } | JoinError::Features { .. }) => {
            ExitStatus::Refused
        }
        StartError::Join(_) => ExitStatus::QuorumTimeout,
    }
}
