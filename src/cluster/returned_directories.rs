//! Log directories that come back while the broker runs: the broker registers them again, so that the controller elects
//! leaders for their replicas.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::broker_lifecycle::BrokerLifecycle;
use crate::blocking;

/// How often the paths of missing disks are checked.
const RETURN_CHECK_INTERVAL: Duration = Duration::from_secs(1);

impl BrokerLifecycle {
    /// Opens directories whose disk has come back and registers them with the controller, until `stop`.
    pub(crate) async fn watch_returned_directories(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(RETURN_CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if self.session.broker_epoch().is_none() {
                continue;
            }
            if self.replicas.log_manager.has_idle() {
                let replicas = Arc::clone(&self.replicas);
                blocking::run(move || replicas.log_manager.look_again()).await;
            }
            if self.lacks_directories()
                && let Some(Err(failure)) = stop.run_until_cancelled(self.register_again()).await
            {
                warn!(
                    "the registration of log directories that are back failed and is retried: {failure}"
                );
            }
        }
    }

    /// Whether the broker's registration lacks a directory in use.
    fn lacks_directories(&self) -> bool {
        let image = self.metadata_cache.image();
        let Some(own) = image.brokers.get(self.config.node_id) else { return false };
        let is_current = self.session.broker_epoch() == Some(own.epoch);
        let ids = self.replicas.log_manager.directory_ids();
        is_current
            && image.metadata_version().is_directory_assignment_supported()
            && ids.iter().any(|id| !own.directories.contains(id))
    }
}
