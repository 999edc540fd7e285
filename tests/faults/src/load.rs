//! Idempotent producers (acks=all) that send to every partition at a steady pace, through any fault, and write down what was
//! acknowledged where and when.

mod java;
mod librdkafka;

use std::sync::Arc;
use std::time::Duration;

use crate::recording::{Recording, Written};

/// A partition without a leader is not sent more: it would only lengthen the catching up.
const MAX_UNACKNOWLEDGED: u64 = 2_000;

/// Which producer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// librdkafka, quick to start, told to look for new leaders often.
    Librdkafka,
    /// Apache Kafka's own producer with its defaults, in a JVM of its own.
    Java,
}

/// What a load shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadSetup {
    /// Who sends.
    pub client: Client,
    /// Partitions `0..partitions` are sent to.
    pub partitions: i32,
    /// The steady pace.
    pub records_per_second_and_partition: u64,
    /// After how long without an answer the client gives a request up and looks for another leader.
    pub request_timeout: Duration,
}

/// A load at work.
#[derive(Debug)]
pub struct Load {
    setup: LoadSetup,
    recording: Arc<Recording>,
    driver: Driver,
}

#[derive(Debug)]
enum Driver {
    Librdkafka(librdkafka::Driver),
    Java(java::Driver),
}

impl Load {
    /// Starts to send to a topic.
    ///
    /// # Panics
    /// When the client refuses its configuration.
    pub fn start(bootstrap: &str, topic: &str, setup: LoadSetup) -> Self {
        let recording = Arc::new(Recording::begin());
        let driver = match setup.client {
            Client::Librdkafka => {
                Driver::Librdkafka(librdkafka::Driver::start(bootstrap, topic, setup, &recording))
            }
            Client::Java => Driver::Java(java::Driver::start(bootstrap, topic, setup, &recording)),
        };
        Self { setup, recording, driver }
    }

    /// What it was started with.
    pub fn setup(&self) -> LoadSetup {
        self.setup
    }

    pub(crate) fn recording(&self) -> &Recording {
        &self.recording
    }

    /// Sends no more and waits until every record is acknowledged or given up, for `limit` at most.
    pub(crate) fn finish(mut self, limit: Duration) -> Written {
        match &mut self.driver {
            Driver::Librdkafka(driver) => driver.finish(limit),
            Driver::Java(driver) => driver.finish(limit),
        }
        self.recording.written().clone()
    }
}
