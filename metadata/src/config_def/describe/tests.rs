//! The expected answers are those of Apache Kafka 4.3.1 to the same requests.

use super::*;

const ALL: KeyFilter<'static> = KeyFilter(&[]);

fn configs(pairs: &[(&str, &str)]) -> Configs {
    pairs.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()
}

fn broker(pairs: &[(&str, &str)]) -> BrokerConfigs {
    BrokerConfigs::new(configs(pairs)).unwrap()
}

fn find<'a>(described: &'a [DescribedConfig], name: &str) -> &'a DescribedConfig {
    described.iter().find(|config| config.name == name).unwrap()
}

fn synonyms(config: &DescribedConfig) -> Vec<(&str, i8, Option<&str>)> {
    let row = |synonym: &'_ ConfigSynonym| synonym.source.id();
    config.synonyms.iter().map(|s| (&*s.name, row(s), s.value.as_deref())).collect()
}

#[test]
fn a_topics_override_comes_before_the_brokers_value() {
    let overrides = configs(&[("cleanup.policy", "compact"), ("retention.ms", "1000")]);
    let described = describe_topic(&broker(&[]), &overrides, ALL).unwrap();
    let policy = find(&described, "cleanup.policy");
    assert_eq!((policy.value.as_deref(), policy.source.id()), (Some("compact"), 1));
    assert_eq!(
        synonyms(policy),
        [("cleanup.policy", 1, Some("compact")), ("log.cleanup.policy", 5, Some("delete"))]
    );
    assert_eq!(synonyms(find(&described, "retention.ms")), [("retention.ms", 1, Some("1000"))]);
    assert_eq!(policy.type_id(), 7);
}

#[test]
fn hours_decide_a_topics_retention_without_being_named_as_its_source() {
    let described =
        describe_topic(&broker(&[("log.retention.hours", "2")]), &Configs::new(), ALL).unwrap();
    let retention = find(&described, "retention.ms");
    assert_eq!(retention.value.as_deref(), Some("7200000"));
    assert_eq!(retention.source, ConfigSource::Default);
    assert_eq!(retention.synonyms, []);
}

#[test]
fn a_topic_lists_every_public_key_and_no_internal_or_own_one() {
    let names = |overrides: &[(&str, &str)], keys: &[ByteString]| -> Vec<ByteString> {
        let described = describe_topic(&broker(&[]), &configs(overrides), KeyFilter(keys)).unwrap();
        described.into_iter().map(|config| config.name).collect()
    };
    assert_eq!(names(&[], &[]).len(), 33);
    assert!(
        names(&[("internal.segment.bytes", "5")], &[]).contains(&"internal.segment.bytes".into())
    );
    assert!(names(&[("flush.before.ack", "false")], &[]).contains(&"flush.before.ack".into()));
    let asked = ["flush.before.ack".into(), "no.such.key".into()];
    assert_eq!(names(&[], &asked), ["flush.before.ack"]);
}

#[test]
fn a_broker_names_the_static_value_and_the_default_behind_it() {
    let described = describe_broker(&broker(&[("offsets.topic.replication.factor", "1")]), ALL);
    let factor = find(&described, "offsets.topic.replication.factor");
    assert_eq!((factor.value.as_deref(), factor.source.id()), (Some("1"), 4));
    assert!(factor.read_only);
    assert_eq!(
        synonyms(factor),
        [
            ("offsets.topic.replication.factor", 4, Some("1")),
            ("offsets.topic.replication.factor", 5, Some("3"))
        ]
    );
    let null = find(&described, "log.retention.ms");
    assert_eq!((null.value.as_deref(), null.source.id()), (None, 5));
    assert_eq!(null.synonyms, []);
    assert!(!null.read_only);
    assert_eq!(
        synonyms(find(&described, "log.retention.hours")),
        [("log.retention.hours", 5, Some("168"))]
    );
}

#[test]
fn dynamic_layers_come_first() {
    let mut broker = broker(&[("log.cleaner.backoff.ms", "1")]);
    broker.set_dynamic_default(configs(&[("log.cleaner.backoff.ms", "2")]));
    broker.set_dynamic_broker(configs(&[("log.cleaner.backoff.ms", "3")]));
    let described = describe_broker(&broker, ALL);
    let sources: Vec<i8> = find(&described, "log.cleaner.backoff.ms")
        .synonyms
        .iter()
        .map(|synonym| synonym.source.id())
        .collect();
    assert_eq!(sources, [2, 3, 4, 5]);
    let described = describe_broker_default(&broker, ALL);
    assert_eq!(described.len(), 1);
    assert_eq!(synonyms(&described[0]), [("log.cleaner.backoff.ms", 3, Some("2"))]);
}

#[test]
fn secrets_and_unknown_keys_are_never_shown() {
    let described = describe_broker(
        &broker(&[
            ("ssl.keystore.password", "hunter2"),
            ("listener.name.external.ssl.key.password", "hunter2"),
            ("my.plugin.token", "hunter2"),
        ]),
        ALL,
    );
    assert!(!format!("{described:?}").contains("hunter2"));
    for name in
        ["ssl.keystore.password", "listener.name.external.ssl.key.password", "my.plugin.token"]
    {
        assert!(find(&described, name).is_sensitive, "{name}");
    }
    assert_eq!(find(&described, "my.plugin.token").type_id(), 0);
}

#[test]
fn a_group_names_the_brokers_key_as_its_default() {
    let overrides = configs(&[("consumer.session.timeout.ms", "50000")]);
    let described = describe_group(&broker(&[]), &overrides, ALL).unwrap();
    assert_eq!(described.len(), 17);
    assert_eq!(
        synonyms(find(&described, "consumer.session.timeout.ms")),
        [
            ("consumer.session.timeout.ms", 8, Some("50000")),
            ("group.consumer.session.timeout.ms", 5, Some("45000"))
        ]
    );
    assert_eq!(
        synonyms(find(&described, "share.auto.offset.reset")),
        [("share.auto.offset.reset", 5, Some("latest"))]
    );
}

#[test]
fn created_topics_name_the_converted_source() {
    let configs = created_topic_configs(
        &broker(&[("log.retention.hours", "2"), ("log.retention.bytes", " 7 ")]),
        &configs(&[("segment.ms", "5")]),
    );
    let row = |name| {
        let config = find(&configs, name);
        (config.value.as_deref(), config.source.id())
    };
    assert_eq!(row("retention.ms"), (Some("7200000"), 4));
    assert_eq!(row("retention.bytes"), (Some(" 7 "), 4));
    assert_eq!(row("segment.ms"), (Some("5"), 1));
    assert_eq!(row("preallocate"), (Some("false"), 5));
    assert!(configs.is_sorted_by(|a, b| a.name < b.name));
    assert_eq!(configs.len(), 33);
}

#[test]
fn a_subscription_is_described_with_its_defaults() {
    let described = describe_client_metrics(&configs(&[("interval.ms", "500")]), ALL).unwrap();
    assert_eq!(described.len(), 3);
    assert_eq!(find(&described, "interval.ms").source, ConfigSource::ClientMetrics);
    assert_eq!(find(&described, "match").value.as_deref(), Some(""));
}

#[test]
fn a_broker_key_has_its_own_type_and_not_that_of_a_synonym() {
    let described = describe_broker(&broker(&[]), ALL);
    assert_eq!(find(&described, "log.retention.hours").type_id(), ConfigType::Int.id());
    assert_eq!(find(&described, "log.retention.ms").type_id(), ConfigType::Long.id());
    let listener_key = "listener.name.external.ssl.keystore.location";
    let described = describe_broker(&broker(&[(listener_key, "/x")]), ALL);
    assert_eq!(find(&described, listener_key).type_id(), ConfigType::String.id());
}
