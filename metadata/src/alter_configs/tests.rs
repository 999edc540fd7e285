//! The refusals of a broker, and the merge of answers.

use klamm_protocol::messages::alter_configs_request as legacy;
use klamm_protocol::messages::incremental_alter_configs_request::AlterableConfig;

use super::*;

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

fn check(resources: Vec<AlterConfigsResource>) -> Vec<Checked> {
    let request = IncrementalAlterConfigsRequest { resources, validate_only: false };
    check_incremental(&request, 1, &ConfigsImage::default())
}

fn refusal(resource: AlterConfigsResource) -> (ErrorCode, String) {
    match check(vec![resource]).remove(0) {
        Checked::Refused(refusal) => (refusal.code(), refusal.to_string()),
        other => panic!("not refused but {other:?}"),
    }
}

#[test]
fn topics_groups_and_good_broker_changes_go_to_the_controller() {
    let topic = resource(TOPIC, "t", &[("retention.ms", 9, Some("nonsense"))]);
    let group = resource(32, "g", &[("consumer.session.timeout.ms", 0, Some("1"))]);
    let broker = resource(BROKER, "1", &[("log.cleaner.backoff.ms", 0, Some("14000"))]);
    let all = resource(BROKER, "", &[("log.cleaner.backoff.ms", 1, None)]);
    let logger = resource(8, "1", &[("root", 0, Some("DEBUG"))]);
    assert_eq!(check(vec![topic, group, broker, all]), vec![Checked::Forward; 4]);
    assert_eq!(check(vec![logger]), [Checked::Here]);
}

#[test]
fn refusals_have_kafkas_codes_and_texts() {
    let twice = [("retention.ms", 0, Some("1")), ("retention.ms", 1, None)];
    let nulls = [("a", 0, None), ("b", 1, None), ("c", 2, None)];
    for (asked, text) in [
        (resource(TOPIC, "t", &twice), "Error due to duplicate config keys"),
        (resource(TOPIC, "t", &nulls), "Null value not supported for : a, c"),
        (resource(77, "x", &[]), "Unknown resource type 77"),
        (resource(BROKER, "x", &[]), "Node id must be an integer, but it is: x"),
        (resource(BROKER, "2", &[]), "Unexpected broker id, expected 1, but received 2"),
        (
            resource(BROKER, "1", &[("log.cleaner.backoff.ms", 9, Some("1"))]),
            "Unknown operations type 9",
        ),
    ] {
        assert_eq!(refusal(asked), (ErrorCode::InvalidRequest, text.to_owned()));
    }
    let read_only = resource(BROKER, "1", &[("node.id", 0, Some("7"))]);
    assert_eq!(refusal(read_only).0, ErrorCode::InvalidRequest);
    let no_list = resource(BROKER, "1", &[("log.cleaner.backoff.ms", 2, Some("7"))]);
    assert_eq!(refusal(no_list).0, ErrorCode::InvalidConfig);
}

#[test]
fn a_resource_twice_is_refused_both_times() {
    let same = || resource(TOPIC, "t", &[("retention.ms", 0, Some("1"))]);
    let refused = Checked::Refused(AlterRefusal::RepeatedResource);
    let other = resource(TOPIC, "u", &[]);
    assert_eq!(check(vec![same(), other, same()]), [refused.clone(), Checked::Forward, refused]);
}

#[test]
fn answers_are_joined_in_the_order_of_the_request() {
    let request = IncrementalAlterConfigsRequest {
        resources: vec![
            resource(77, "x", &[]),
            resource(TOPIC, "t", &[]),
            resource(8, "1", &[]),
            resource(TOPIC, "lost", &[]),
        ],
        validate_only: true,
    };
    let checked = check_incremental(&request, 1, &ConfigsImage::default());
    let forwarded = forwarded_incremental(&request, &checked);
    assert!(forwarded.validate_only);
    let names: Vec<_> = forwarded.resources.iter().map(|r| &*r.resource_name).collect();
    assert_eq!(names, ["t", "lost"]);
    let controller = IncrementalAlterConfigsResponse {
        responses: vec![IncrementalResult {
            error_code: ErrorCode::InvalidConfig.code(),
            error_message: Some("no".into()),
            resource_type: TOPIC,
            resource_name: "t".into(),
        }],
        ..Default::default()
    };
    let joined = join_incremental(&request, &checked, &controller);
    let answers: Vec<_> = joined
        .responses
        .iter()
        .map(|r| (&*r.resource_name, ErrorCode::from_code(r.error_code).unwrap()))
        .collect();
    assert_eq!(
        answers,
        [
            ("x", ErrorCode::InvalidRequest),
            ("t", ErrorCode::InvalidConfig),
            ("1", ErrorCode::None),
            ("lost", ErrorCode::UnknownServerError),
        ]
    );
}

#[test]
fn the_legacy_request_is_judged_alike_but_alters_no_loggers() {
    let resource = |resource_type, name: &str, value: Option<&str>| legacy::AlterConfigsResource {
        resource_type,
        resource_name: name.into(),
        configs: vec![legacy::AlterableConfig {
            name: "log.cleaner.backoff.ms".into(),
            value: value.map(ByteString::from),
        }],
    };
    let request = AlterConfigsRequest {
        resources: vec![
            resource(BROKER, "1", Some("5")),
            resource(8, "1", Some("5")),
            resource(TOPIC, "t", None),
            resource(BROKER, "2", Some("5")),
        ],
        validate_only: false,
    };
    let checked = check_legacy(&request, 1);
    assert_eq!(checked[0], Checked::Forward);
    assert_eq!(checked[1], Checked::Refused(AlterRefusal::UnknownResourceType(8)));
    let keys = vec!["log.cleaner.backoff.ms".to_owned()];
    assert_eq!(checked[2], Checked::Refused(AlterRefusal::NullValues { keys }));
    assert!(matches!(checked[3], Checked::Refused(AlterRefusal::OtherBroker { .. })));
    assert_eq!(forwarded_legacy(&request, &checked).resources.len(), 1);
    let joined = join_legacy(&request, &checked, &AlterConfigsResponse::default());
    assert_eq!(joined.responses[0].error_code, ErrorCode::UnknownServerError.code());
    assert_eq!(joined.responses[1].error_message.as_deref(), Some("Unknown resource type 8"));
}
