//! The operations that a client may perform on a resource, as a bit for each of Kafka's `AclOperation` codes. Without
//! an authorizer these are all operations of the resource type (`AclEntry.supportedOperations`).

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

/// The value of the field if the request did not ask for it.
pub(crate) const NOT_REQUESTED: i32 = i32::MIN;

/// All operations on a topic.
pub(crate) const ALL_OF_TOPIC: i32 =
    READ | WRITE | CREATE | DELETE | ALTER | DESCRIBE | DESCRIBE_CONFIGS | ALTER_CONFIGS;

/// All operations on the cluster.
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
