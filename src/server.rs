//! The process around a broker: runtime, signals, exit status.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{debug, error, info, warn};

use crate::broker::{Broker, StartError};
use crate::cli::ExitStatus;
use crate::config::BrokerConfig;
use crate::lifecycle::JoinError;
use crate::net::descriptors;

/// Runs a broker until a signal or a failure ends it.
pub fn run(config: BrokerConfig) -> ExitStatus {
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
    // Whatever hangs on the blocking pool must not keep a stopped broker alive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    status
}

async fn serve(config: BrokerConfig) -> ExitStatus {
    let broker = match Broker::start(config).await {
        Ok(broker) => broker,
        Err(failure) => {
            error!("the broker does not start: {failure}");
            return status_of(&failure);
        }
    };
    for (listener, address) in broker.addresses() {
        info!("listening on {listener}://{address}");
    }
    info!(target: "kafka.server.BrokerServer", "[BrokerServer id={}] Transition from STARTING to STARTED", broker.node_id());
    // Container tests wait for this line of Kafka's.
    info!(target: "kafka.server.BrokerLifecycleManager", "[BrokerLifecycleManager id={}] The broker has been unfenced. Transitioning from RECOVERY to RUNNING.", broker.node_id());
    let status = wait(&broker).await;
    let stopped = tokio::select! {
        () = broker.shutdown() => true,
        () = stop_signal() => false,
    };
    if !stopped {
        warn!("a second signal: the broker stops without closing its logs");
    }
    status
}

/// Waits for a reason to stop.
async fn wait(broker: &Broker) -> ExitStatus {
    tokio::select! {
        () = stop_signal() => {
            info!("a signal asks the broker to stop");
            ExitStatus::Ok
        }
        () = broker.failed() => ExitStatus::Runtime,
    }
}

/// SIGTERM or SIGINT. Without signals there is nothing to wait for.
async fn stop_signal() {
    let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    match (terminate, interrupt) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        (terminate, interrupt) => {
            warn!("signals cannot be waited for: {:?}", terminate.err().or(interrupt.err()));
            std::future::pending::<()>().await;
        }
    }
}

fn status_of(failure: &StartError) -> ExitStatus {
    match failure {
        StartError::Bind { .. } => ExitStatus::Bind,
        StartError::UnknownHost { .. } => ExitStatus::Usage,
        StartError::Store(_) => ExitStatus::DataDirectory,
        StartError::Metadata(_) | StartError::Thread(_) => ExitStatus::Runtime,
        StartError::Join(JoinError::Refused { .. } | JoinError::Features { .. }) => {
            ExitStatus::Refused
        }
        StartError::Join(_) => ExitStatus::QuorumTimeout,
    }
}
