//! The results of configuration changes, and which are refused.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::alter_configs_request as legacy;
use klamm_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};

use super::*;
use crate::controller::testing::Testbed;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

fn resource(type_: i8, name: &str, configs: &[(&str, i8, Option<&str>)]) -> AlterConfigsResource {
    let configs = configs.iter().map(|(name, config_operation, value)| AlterableConfig {
        name: (*name).into(),
        config_operation: *config_operation,
        value: value.map(ByteString::from),
    });
    AlterConfigsResource {
        resource_type: type_,
        resource_name: name.into(),
        configs: configs.collect(),
    }
}

fn alter(
    testbed: &mut Testbed,
    resources: Vec<AlterConfigsResource>,
) -> Vec<(ErrorCode, Option<String>)> {
    let request = IncrementalAlterConfigsRequest { resources, validate_only: false };
    let outcome = testbed.controller.on_incremental_alter_configs(&request, true);
    assert!(outcome.atomic);
    let responses = testbed.apply(outcome).responses;
    let answers = responses.into_iter().map(|response| {
        let code = ErrorCode::from_code(response.error_code).unwrap();
        (code, response.error_message.map(|text| text.to_string()))
    });
    answers.collect()
}

fn of_topic(testbed: &Testbed, key: &str) -> Option<String> {
    testbed.controller.image().configs.of_topic("t").get(key).map(ToString::to_string)
}

fn with_topic() -> Testbed {
    let mut testbed = Testbed::with_brokers([1]);
    testbed.create("t", &[&[1]], &[]);
    testbed
}

#[test]
fn values_are_set_appended_to_subtracted_from_and_deleted() {
    let mut testbed = with_topic();
    let set = [("retention.ms", 0, Some("5")), ("cleanup.policy", 2, Some("compact"))];
    assert_eq!(alter(&mut testbed, vec![resource(TOPIC, "t", &set)]), [(ErrorCode::None, None)]);
    assert_eq!(of_topic(&testbed, "retention.ms").as_deref(), Some("5"));
    assert_eq!(of_topic(&testbed, "cleanup.policy").as_deref(), Some("delete,compact"));
    let unset = [("retention.ms", 1, None), ("cleanup.policy", 3, Some("delete"))];
    alter(&mut testbed, vec![resource(TOPIC, "t", &unset)]);
    assert_eq!(of_topic(&testbed, "retention.ms"), None);
    assert_eq!(of_topic(&testbed, "cleanup.policy").as_deref(), Some("compact"));
}

#[test]
fn a_value_that_stays_needs_a_record_only_on_brokers() {
    let mut testbed = with_topic();
    let before = testbed.log.len();
    alter(&mut testbed, vec![resource(TOPIC, "t", &[("retention.ms", 1, None)])]);
    assert_eq!(testbed.log.len(), before);
    alter(&mut testbed, vec![resource(BROKER, "1", &[("log.cleaner.backoff.ms", 1, None)])]);
    assert_eq!(testbed.log.len(), before + 1);
}

#[test]
fn one_bad_value_leaves_the_whole_resource_as_it_was_and_others_change() {
    let mut testbed = with_topic();
    testbed.create("u", &[&[1]], &[]);
    let bad = [("retention.ms", 0, Some("x")), ("max.message.bytes", 0, Some("9"))];
    let good = [("retention.ms", 0, Some("7"))];
    let answers =
        alter(&mut testbed, vec![resource(TOPIC, "t", &bad), resource(TOPIC, "u", &good)]);
    assert_eq!(answers[0].0, ErrorCode::InvalidConfig);
    assert_eq!(answers[1].0, ErrorCode::None);
    assert!(testbed.controller.image().configs.of_topic("t").is_empty());
    assert_eq!(testbed.controller.image().configs.of_topic("u").len(), 1);
}

#[test]
fn refusals_have_kafkas_codes_and_texts() {
    let mut testbed = with_topic();
    let any = [("retention.ms", 0, Some("1"))];
    for (asked, code, text) in [
        (
            resource(TOPIC, "t", &[("retention.ms", 2, Some("5"))]),
            ErrorCode::InvalidConfig,
            "Can't APPEND to key retention.ms because its type is not LIST.",
        ),
        (
            resource(TOPIC, "t", &[("no.such", 0, Some("5"))]),
            ErrorCode::InvalidConfig,
            "Unknown topic config name: no.such",
        ),
        (
            resource(TOPIC, "no", &any),
            ErrorCode::UnknownTopicOrPartition,
            "The topic 'no' does not exist.",
        ),
        (
            resource(TOPIC, "", &any),
            ErrorCode::InvalidRequest,
            "Default topic resources are not allowed.",
        ),
        (
            resource(TOPIC, "a b", &any),
            ErrorCode::InvalidTopicException,
            "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
        ),
        (
            resource(BROKER, "x", &any),
            ErrorCode::InvalidRequest,
            "Unable to parse broker name as a base 10 number.",
        ),
        (resource(BROKER, "-2", &any), ErrorCode::InvalidRequest, "Invalid negative broker ID."),
        (resource(BROKER, "9", &any), ErrorCode::BrokerIdNotRegistered, "No node with id 9 found."),
        (
            resource(BROKER, "1", &[("min.insync.replicas", 0, Some("1"))]),
            ErrorCode::InvalidConfig,
            "Broker-level min.insync.replicas cannot be altered while ELR is enabled.",
        ),
        (
            resource(BROKER, "", &[("min.insync.replicas", 1, None)]),
            ErrorCode::InvalidConfig,
            "Cluster-level min.insync.replicas cannot be removed while ELR is enabled.",
        ),
        (resource(77, "x", &any), ErrorCode::UnsupportedVersion, "Unknown resource type 77."),
        (resource(8, "1", &any), ErrorCode::InvalidRequest, "Unknown resource type BROKER_LOGGER"),
        (
            resource(32, "", &[]),
            ErrorCode::InvalidRequest,
            "Default group resources are not allowed.",
        ),
        (resource(16, "", &[]), ErrorCode::InvalidRequest, "Subscription name can't be empty"),
    ] {
        let before = testbed.log.len();
        assert_eq!(alter(&mut testbed, vec![asked]), [(code, Some(text.to_owned()))]);
        assert_eq!(testbed.log.len(), before);
    }
}

#[test]
fn an_unknown_operation_fails_the_request_without_a_word() {
    let mut testbed = with_topic();
    let bad = resource(TOPIC, "t", &[("retention.ms", 9, Some("1"))]);
    let good = resource(BROKER, "1", &[("log.cleaner.backoff.ms", 0, Some("1"))]);
    let unknown = (ErrorCode::UnknownServerError, None);
    assert_eq!(alter(&mut testbed, vec![bad, good]), [unknown.clone(), unknown]);
}

#[test]
fn a_resource_twice_is_refused_once_and_unchanged() {
    let mut testbed = with_topic();
    let set = |value| resource(TOPIC, "t", &[("retention.ms", 0, Some(value))]);
    let answers = alter(&mut testbed, vec![set("1"), set("2")]);
    assert_eq!(answers, [(ErrorCode::InvalidRequest, Some("Duplicate resource.".to_owned()))]);
    assert_eq!(of_topic(&testbed, "retention.ms"), None);
}

#[test]
fn cordoned_directories_may_shrink_but_not_grow_without_their_broker() {
    let mut testbed = with_topic();
    let cordon = |value| resource(BROKER, "1", &[("cordoned.log.dirs", 0, Some(value))]);
    alter(&mut testbed, vec![cordon("/a,/b")]);
    let direct = |testbed: &Testbed, value| {
        let request =
            IncrementalAlterConfigsRequest { resources: vec![cordon(value)], validate_only: true };
        let outcome = testbed.controller.on_incremental_alter_configs(&request, false);
        outcome.response.responses[0].error_code
    };
    assert_eq!(direct(&testbed, "/b"), 0);
    assert_eq!(direct(&testbed, ""), 0);
    assert_eq!(direct(&testbed, "/b, /c"), ErrorCode::InvalidConfig.code());
    testbed.finalize("metadata.version", 29);
    let (code, text) = alter(&mut testbed, vec![cordon("/a")]).remove(0);
    assert_eq!(code, ErrorCode::InvalidConfig);
    assert!(text.unwrap().ends_with("requires metadata.version >= 4.3-IV0"));
}

#[test]
fn another_min_insync_replicas_voids_eligible_leaders() {
    let mut testbed = Testbed::with_brokers([1, 2]);
    testbed.create("t", &[&[1, 2]], &[("min.insync.replicas", "2")]);
    testbed.fence(2);
    assert_eq!(testbed.partition("t", 0).elr, [2]);
    alter(&mut testbed, vec![resource(TOPIC, "t", &[("min.insync.replicas", 0, Some("1"))])]);
    assert_eq!(testbed.partition("t", 0).elr, []);
    testbed.heartbeat(2, |_| {});
    alter(&mut testbed, vec![resource(BROKER, "", &[("min.insync.replicas", 0, Some("2"))])]);
    let Some(MetadataRecord::ClearElr(clear)) = testbed.log.last() else { panic!("clear ELR") };
    assert_eq!(clear.topic_name, "", "all topics");
}

#[test]
fn a_topics_min_insync_replicas_comes_from_topic_then_brokers_then_default() {
    let mut testbed = Testbed::with_brokers([1, 2, 3]);
    testbed.create("t", &[&[1, 2, 3]], &[]);
    let min_isr = |testbed: &Testbed| {
        let topic = testbed.controller.image().topics.by_name("t").unwrap();
        testbed.controller.effective_min_isr(topic)
    };
    assert_eq!(min_isr(&testbed), 1);
    alter(&mut testbed, vec![resource(BROKER, "", &[("min.insync.replicas", 0, Some("2"))])]);
    assert_eq!(min_isr(&testbed), 2);
    alter(&mut testbed, vec![resource(TOPIC, "t", &[("min.insync.replicas", 0, Some("9"))])]);
    assert_eq!(min_isr(&testbed), 3, "never above the replication factor");
    assert!(!testbed.controller.is_unclean_election_enabled("t"));
    let unclean = [("unclean.leader.election.enable", 0, Some("true"))];
    alter(&mut testbed, vec![resource(TOPIC, "t", &unclean)]);
    assert!(testbed.controller.is_unclean_election_enabled("t"));
}

#[test]
fn the_legacy_request_replaces_everything() {
    let mut testbed = Testbed::with_brokers([1]);
    testbed.create("t", &[&[1]], &[("retention.ms", "1"), ("max.message.bytes", "3000")]);
    let value = |name: &str, value: &str| legacy::AlterableConfig {
        name: name.into(),
        value: Some(value.into()),
    };
    let mut request = AlterConfigsRequest {
        resources: vec![legacy::AlterConfigsResource {
            resource_type: TOPIC,
            resource_name: "t".into(),
            configs: vec![value("retention.ms", "2")],
        }],
        validate_only: true,
    };
    assert_eq!(testbed.controller.on_alter_configs(&request, true).records, []);
    request.validate_only = false;
    let outcome = testbed.controller.on_alter_configs(&request, true);
    assert_eq!(testbed.apply(outcome).responses[0].error_code, 0);
    assert_eq!(of_topic(&testbed, "retention.ms").as_deref(), Some("2"));
    assert_eq!(of_topic(&testbed, "max.message.bytes"), None);
    request.resources[0].configs = vec![value("retention.ms", "x")];
    let outcome = testbed.controller.on_alter_configs(&request, true);
    assert_eq!(testbed.apply(outcome).responses[0].error_code, ErrorCode::InvalidConfig.code());
}
