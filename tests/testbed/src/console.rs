//! The few steps that most tests begin or end with, by way of Kafka's own tools.

use crate::broker::Broker;
use crate::place::unique;

impl Broker {
    /// Creates a topic with a name of its own that starts with `stem`; `options` as for `kafka-topics --create`.
    ///
    /// # Panics
    /// When it cannot be created.
    #[track_caller]
    pub fn create_topic(&self, stem: &str, options: &str) -> String {
        let topic = unique(stem);
        let created = self.tool(&format!("kafka-topics --create --topic {topic} {options}")).ok();
        assert!(created.contains(&format!("Created topic {topic}.")), "{created}");
        topic
    }

    /// Sends one record without a key for each line.
    ///
    /// # Panics
    /// When one is not acknowledged.
    #[track_caller]
    pub fn produce_lines(&self, topic: &str, lines: &[impl AsRef<str>]) {
        let input: String = lines.iter().map(|line| format!("{}\n", line.as_ref())).collect();
        let output =
            self.tool(&format!("kafka-console-producer --topic {topic} --sync")).stdin(input).run();
        assert!(!output.stderr.contains("ERROR"), "{output}");
        output.ok();
    }

    /// The values of the first `count` records of all partitions, sorted.
    ///
    /// # Panics
    /// When there are fewer.
    #[track_caller]
    pub fn consume_lines(&self, topic: &str, count: usize) -> Vec<String> {
        let line = format!(
            "kafka-console-consumer --topic {topic} --from-beginning --max-messages {count} \
             --timeout-ms 30000"
        );
        let mut lines: Vec<String> = self.tool(&line).ok().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), count, "{topic}: {lines:?}");
        lines.sort();
        lines
    }
}
