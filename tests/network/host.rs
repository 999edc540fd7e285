//! A broker inside the test's own process, on a free port and a directory of its own.

use std::net::SocketAddr;

use klamm::Broker;
use klamm::config::BrokerConfig;
use klamm_testbed::Directory;
use tokio::runtime::Runtime;

use crate::client::Client;

/// A running broker; dropped, it shuts down.
pub(crate) struct Host {
    runtime: Runtime,
    broker: Option<Broker>,
    #[expect(dead_code, reason = "held for its drop")]
    directory: Directory,
}

impl Host {
    /// With these settings over the defaults.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let directory = Directory::new("network");
        let data = directory.path().join("data");
        let base = [
            ("listeners", "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0"),
            ("log.dirs", data.to_str().unwrap()),
        ];
        let config = BrokerConfig::from_pairs(base.iter().chain(settings).copied()).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let broker = runtime.block_on(Broker::start(config)).unwrap();
        Self { runtime, broker: Some(broker), directory }
    }

    /// Of its first listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses()[0]
    }

    /// Of its listeners, in their order.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.broker.as_ref().unwrap().addresses().iter();
        addresses.map(|(_, address)| *address).collect()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.take() {
            self.runtime.block_on(broker.shutdown());
        }
    }
}
