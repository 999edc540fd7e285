//! What a client may do with a resource, as a bit for each of Kafka's `AclOperation` codes. Without an
//! authorizer that is everything the resource knows (`AclEntry.supportedOperations`).

const READ: i32 = 1 << 3;
const WRITE: i32 = 1 << 4;
const CREATE: i32 = 1 << 5;
const DELETE: i32 = 1 << 6;
const ALTER: i32 = 1 << 7;
const DESCRIBE: i32 = 1 << 8;
const CLUSTER_ACTION: i32 = 1 << 9;
const DESCRIBE_CONFIGS: i32 = 1 << 10;
const ALTER_CONFIGS: i32 = 1 << 11;
const IDEMPOTENT_WRITE: i32 = 1 << 12;

/// The answer to who did not ask.
pub(crate) const NOT_ASKED_FOR: i32 = i32::MIN;

/// Everything that can be done with a topic.
pub(crate) const ALL_OF_TOPIC: i32 =
    READ | WRITE | CREATE | DELETE | ALTER | DESCRIBE | DESCRIBE_CONFIGS | ALTER_CONFIGS;

/// Everything that can be done with the cluster.
pub(crate) const ALL_OF_CLUSTER: i32 = CREATE
    | ALTER
    | DESCRIBE
    | CLUSTER_ACTION
    | DESCRIBE_CONFIGS
    | ALTER_CONFIGS
    | IDEMPOTENT_WRITE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sets_are_those_that_kafka_answers() {
        assert_eq!((ALL_OF_TOPIC, ALL_OF_CLUSTER), (3576, 8096));
    }
}
