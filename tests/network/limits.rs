//! Connections: how many, how fast, how long, and what happens when descriptors run out.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use klamm_protocol::messages::api_versions_request::ApiVersionsRequest;
use klamm_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use klamm_protocol::messages::incremental_alter_configs_response::IncrementalAlterConfigsResponse;
use klamm_protocol::messages::produce_response::ProduceResponse;
use klamm_testbed::{Broker, until_true};
use rustix::process::Rlimit;

use crate::LIMIT;
use crate::client::Client;
use crate::host::Host;
use crate::process::{client, limit_descriptors, log};
use crate::records::{FETCH_VERSION, PRODUCE_VERSION, create_topic, fetch, produce};

/// `ConfigResource.Type.BROKER`
const BROKER_RESOURCE: i8 = 4;

/// How long a test looks whether something happens that must not.
const NOT_WITHIN: Duration = Duration::from_millis(200);

/// Whether the broker sends nothing, and keeps the connection, for a while.
fn is_kept_waiting(client: &Client) -> bool {
    client.stream().set_read_timeout(Some(NOT_WITHIN)).unwrap();
    let read = client.stream().read(&mut [0]);
    client.stream().set_read_timeout(Some(LIMIT)).unwrap();
    read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn a_connection_beyond_max_connections_waits_until_another_one_ends() {
    let host = Host::start(&[("max.connections", "2")]);
    let (mut one, mut two) = (host.client(), host.client());
    one.prove();
    two.prove();
    let mut three = host.client();
    three.send(&ApiVersionsRequest::default(), 0);
    assert!(is_kept_waiting(&three));
    drop(one);
    assert!(three.receive().is_some());
    two.prove();
}

#[test]
fn limits_follow_the_dynamic_configuration() {
    let host = Host::start(&[("max.connections", "1")]);
    let mut one = host.client();
    one.prove();
    let mut two = host.client();
    two.send(&ApiVersionsRequest::default(), 0);
    assert!(is_kept_waiting(&two));
    set_broker_config(&mut one, "max.connections", "5");
    assert!(two.receive().is_some());
    set_broker_config(&mut one, "max.connections.per.ip", "2");
    until_true("the limit of an address", LIMIT, || {
        let mut client = host.client();
        client.send(&ApiVersionsRequest::default(), 0);
        client.receive().is_none()
    });
    one.prove();
    two.prove();
}

fn set_broker_config(client: &mut Client, name: &str, value: &str) {
    let config =
        AlterableConfig { name: name.into(), config_operation: 0, value: Some(value.into()) };
    let all_brokers = AlterConfigsResource {
        resource_type: BROKER_RESOURCE,
        resource_name: "".into(),
        configs: vec![config],
    };
    let request =
        IncrementalAlterConfigsRequest { resources: vec![all_brokers], validate_only: false };
    let response: IncrementalAlterConfigsResponse = client.call(&request, 1);
    assert_eq!(response.responses[0].error_code, 0, "{response:?}");
}

#[test]
fn the_limit_holds_for_all_listeners_together() {
    let listeners = "ONE://127.0.0.1:0,TWO://127.0.0.1:0,CONTROLLER://127.0.0.1:0";
    let protocols = "ONE:PLAINTEXT,TWO:PLAINTEXT,CONTROLLER:PLAINTEXT";
    let host = Host::start(&[
        ("listeners", listeners),
        ("advertised.listeners", "ONE://127.0.0.1:9092,TWO://127.0.0.1:9093"),
        ("listener.security.protocol.map", protocols),
        ("inter.broker.listener.name", "ONE"),
        ("max.connections.per.ip", "1"),
    ]);
    let [one, two] = [0, 1].map(|index| host.addresses()[index]);
    let mut first = Client::connect(one);
    first.prove();
    assert!(Client::connect(two).is_closed());
    first.prove();
}

#[test]
fn an_address_gets_its_own_number_of_connections() {
    let host = Host::start(&[
        ("max.connections.per.ip", "1"),
        ("max.connections.per.ip.overrides", "127.0.0.2:2"),
    ]);
    let connect = |last| Client::connect_from(Ipv4Addr::new(127, 0, 0, last), host.address());
    let mut kept = [connect(1), connect(2), connect(2), connect(3)];
    kept.iter_mut().for_each(Client::prove);
    for last in [1, 2, 3] {
        assert!(connect(last).is_closed(), "127.0.0.{last}");
    }
    kept.iter_mut().for_each(Client::prove);
    let [one, ..] = kept;
    drop(one);
    until_true("the seat of a closed connection", LIMIT, || {
        let mut client = connect(1);
        client.send(&ApiVersionsRequest::default(), 0);
        client.receive().is_some()
    });
}

#[test]
fn connections_are_accepted_no_faster_than_the_creation_rate() {
    let host = Host::start(&[("max.connection.creation.rate", "10")]);
    let started = Instant::now();
    let mut clients: Vec<_> = (0..20).map(|_| host.client()).collect();
    clients.iter_mut().for_each(Client::prove);
    let took = started.elapsed();
    // A second's worth comes at once; the other ten take their time.
    assert!(took >= Duration::from_millis(900), "20 connections in {took:?}");
}

#[test]
fn connections_without_traffic_are_closed_and_others_are_not() {
    let host = Host::start(&[("connections.max.idle.ms", "1000")]);
    let (mut idle, mut unfinished, mut waiting) = (host.client(), host.client(), host.client());
    idle.prove();
    unfinished.raw(&[0, 0, 0, 10, 0]);
    create_topic(&mut waiting, "topic");
    waiting.send(&fetch("topic", 0, 600_000), FETCH_VERSION);
    let mut busy = host.client();
    let deadline = Instant::now() + Duration::from_millis(2_000);
    while Instant::now() < deadline {
        busy.prove();
        assert!(is_kept_waiting(&busy));
    }
    for client in [&mut idle, &mut unfinished, &mut waiting] {
        assert!(client.is_closed());
    }
    busy.prove();
}

#[test]
fn without_descriptors_accepting_waits_and_everything_else_goes_on() {
    const DESCRIPTORS: u64 = 240;
    let broker = Broker::start();
    let address: SocketAddr = broker.bootstrap().parse().unwrap();
    let mut early = client(&broker);
    create_topic(&mut early, "before");
    let scarce = Rlimit { current: Some(DESCRIPTORS), maximum: Some(DESCRIPTORS) };
    limit_descriptors(&broker, scarce);

    let flood: Vec<_> = (0..400).map(|_| Client::connect(address)).collect();
    until_true("accepting to be paused", LIMIT, || log(&broker).contains("is paused"));
    for number in 0..10 {
        produce_one(&mut early, "before");
        // A log needs descriptors of its own, which connections must not have taken.
        let topic = format!("during-{number}");
        create_topic(&mut early, &topic);
        produce_one(&mut early, &topic);
    }
    let mut late = client(&broker);
    late.send(&ApiVersionsRequest::default(), 0);
    assert!(is_kept_waiting(&late));

    drop(flood);
    assert!(late.receive().is_some());
    produce_one(&mut late, "before");
    let log = log(&broker);
    // Each pause is logged once, however often accepting is tried meanwhile. A second pause is possible: connections that
    // the clients have closed already are still accepted first.
    let told = log.lines().filter(|line| line.contains("accepting on"));
    let told: Vec<bool> = told.map(|line| line.contains("is paused")).collect();
    assert!(told.starts_with(&[true, false]), "{log}");
    assert!(told.windows(2).all(|pair| pair[0] != pair[1]), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
}

fn produce_one(client: &mut Client, topic: &str) {
    let answer: ProduceResponse = client.call(&produce(topic, b"value", -1), PRODUCE_VERSION);
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
}
