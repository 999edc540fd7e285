//! kafka-configs on topics and brokers.

use klamm_testbed::Broker;

#[test]
fn a_topic_config_is_set_described_and_taken_back() {
    let broker = Broker::shared();
    let topic = broker.create_topic("configured", "");
    let configs = |command: &str| {
        broker.tool(&format!("kafka-configs {command} --entity-type topics --entity-name {topic}"))
    };
    let none = configs("--describe").ok();
    assert_eq!(none, format!("Dynamic configs for topic {topic} are:\n"));

    let changed =
        configs("--alter --add-config max.message.bytes=2000000,cleanup.policy=[compact,delete]")
            .ok();
    assert_eq!(changed, format!("Completed updating config for topic {topic}.\n"));
    let described = configs("--describe").ok();
    for line in [
        "  cleanup.policy=compact,delete sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:cleanup.policy=compact,delete, \
         DEFAULT_CONFIG:log.cleanup.policy=delete}",
        "  max.message.bytes=2000000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:max.message.bytes=2000000, \
         DEFAULT_CONFIG:message.max.bytes=1048588}",
    ] {
        assert!(described.lines().any(|described| described == line), "{described}");
    }

    configs("--alter --delete-config cleanup.policy").ok();
    let described = configs("--describe").ok();
    assert!(!described.contains("cleanup.policy"), "{described}");
    assert!(described.contains("max.message.bytes=2000000"), "{described}");
}

#[test]
fn all_topic_configs_are_described_with_their_origin() {
    let broker = Broker::shared();
    let topic = broker.create_topic("all-configs", "--config retention.ms=5000");
    let described = broker
        .tool(&format!("kafka-configs --describe --all --entity-type topics --entity-name {topic}"))
        .ok();
    for line in [
        "  retention.ms=5000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=5000}",
        "  segment.bytes=1073741824 sensitive=false synonyms={DEFAULT_CONFIG:log.segment.bytes=1073741824}",
        "  compression.type=producer sensitive=false synonyms={DEFAULT_CONFIG:compression.type=producer}",
        "  retention.bytes=-1 sensitive=false synonyms={DEFAULT_CONFIG:log.retention.bytes=-1}",
    ] {
        assert!(described.lines().any(|described| described == line), "{line}\n{described}");
    }
}

#[test]
fn a_bad_topic_config_is_refused_and_nothing_changes() {
    let broker = Broker::shared();
    let topic = broker.create_topic("misconfigured", "");
    for (config, message) in [
        (
            "retention.ms=soon",
            "Invalid value soon for configuration retention.ms: Not a number of type LONG",
        ),
        ("no.such.config=1", "Unknown topic config name: no.such.config"),
        ("cleanup.policy=burn", "Invalid value burn for configuration cleanup.policy"),
    ] {
        let refused = broker
            .tool(&format!(
                "kafka-configs --alter --entity-type topics --entity-name {topic} \
                 --add-config max.message.bytes=5000,{config}"
            ))
            .run()
            .failure();
        assert!(refused.contains(message), "{refused}");
    }
    let described = broker
        .tool(&format!("kafka-configs --describe --entity-type topics --entity-name {topic}"))
        .ok();
    assert_eq!(described, format!("Dynamic configs for topic {topic} are:\n"));
}

#[test]
fn broker_configs_change_while_it_runs_for_one_and_for_all() {
    let broker = Broker::start();
    let one = "--entity-type brokers --entity-name 1";
    let all = "--entity-type brokers --entity-default";
    let alter = |entity: &str, change: &str| {
        broker.tool(&format!("kafka-configs --alter {entity} {change}")).ok()
    };
    let describe = |entity: &str| broker.tool(&format!("kafka-configs --describe {entity}")).ok();
    assert_eq!(
        alter(one, "--add-config log.cleaner.threads=2"),
        "Completed updating config for broker 1.\n"
    );
    alter(all, "--add-config log.cleaner.threads=3,message.max.bytes=7777");
    assert_eq!(
        describe(one),
        "Dynamic configs for broker 1 are:\n  \
         log.cleaner.threads=2 sensitive=false synonyms={DYNAMIC_BROKER_CONFIG:log.cleaner.threads=2, \
         DYNAMIC_DEFAULT_BROKER_CONFIG:log.cleaner.threads=3, DEFAULT_CONFIG:log.cleaner.threads=1}\n"
    );
    let defaults = describe(all);
    assert!(defaults.contains("message.max.bytes=7777"), "{defaults}");

    let topic = broker.create_topic("inherits", "");
    let described = broker
        .tool(&format!("kafka-configs --describe --all --entity-type topics --entity-name {topic}"))
        .ok();
    assert!(
        described.contains(
            "max.message.bytes=7777 sensitive=false synonyms={DYNAMIC_DEFAULT_BROKER_CONFIG:message.max.bytes=7777, \
             DEFAULT_CONFIG:message.max.bytes=1048588}"
        ),
        "{described}"
    );
    alter(one, "--delete-config log.cleaner.threads");
    assert_eq!(describe(one), "Dynamic configs for broker 1 are:\n");
}

#[test]
fn a_broker_config_that_needs_a_restart_is_refused() {
    let refused = Broker::shared()
        .tool("kafka-configs --alter --entity-type brokers --entity-name 1 --add-config log.dirs=/elsewhere")
        .run()
        .failure();
    assert!(refused.contains("Cannot update these configs dynamically"), "{refused}");
}
