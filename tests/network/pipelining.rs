//! Requests that are sent without waiting for answers: what is carried out, and in which order.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use klamm_protocol::messages::api_versions_request::ApiVersionsRequest;
use klamm_protocol::messages::create_topics_response::CreateTopicsResponse;
use klamm_protocol::messages::fetch_response::FetchResponse;
use klamm_protocol::messages::metadata_response::MetadataResponse;
use klamm_protocol::messages::produce_response::ProduceResponse;
use klamm_testbed::{Broker, until_true};

use crate::LIMIT;
use crate::client::{Client, frame, set_length};
use crate::host::Host;
use crate::process::{client, resident_bytes};
use crate::records::{
    CREATE_TOPICS_VERSION, FETCH_VERSION, METADATA_VERSION, PRODUCE_VERSION, create_topic,
    create_topics, end_offset, fetch, metadata_of, produce,
};

/// A wait that no test lives to see the end of.
const FOREVER_MS: i32 = 600_000;

fn produced(client: &mut Client) -> i64 {
    let answer: ProduceResponse = client.receive().unwrap().decode(PRODUCE_VERSION);
    let partition = &answer.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, 0);
    partition.base_offset
}

fn fetched_bytes(client: &mut Client) -> usize {
    let answer: FetchResponse = client.receive().unwrap().decode(FETCH_VERSION);
    let partition = &answer.responses[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    partition.records.as_ref().unwrap().len()
}

#[test]
fn the_end_that_consumers_are_told_is_behind_all_that_producers_were_told_is_written() {
    let host = Host::start(&[]);
    let mut client = host.client();
    create_topic(&mut client, "topic");
    for offset in 0..100 {
        client.send(&produce("topic", b"value", 1), PRODUCE_VERSION);
        assert_eq!(produced(&mut client), offset);
        assert_eq!(end_offset(&mut client, "topic"), offset + 1);
    }
}

#[test]
fn a_hundred_waiting_requests_on_one_connection_are_answered_in_their_order() {
    let host = Host::start(&[]);
    let mut client = host.client();
    create_topic(&mut client, "filled");
    create_topic(&mut client, "empty");
    let sent: Vec<_> = (0..50)
        .flat_map(|_| {
            let produce = client.send(&produce("filled", b"value", -1), PRODUCE_VERSION);
            [produce, client.send(&fetch("empty", 0, 100), FETCH_VERSION)]
        })
        .collect();
    let mut offsets = Vec::new();
    for (position, id) in sent.iter().enumerate() {
        let answer = client.receive().unwrap();
        assert_eq!(answer.correlation_id, *id);
        if position % 2 == 0 {
            let answer: ProduceResponse = answer.decode(PRODUCE_VERSION);
            offsets.push(answer.responses[0].partition_responses[0].base_offset);
        }
    }
    assert_eq!(offsets, (0..50).collect::<Vec<_>>());
}

#[test]
fn more_requests_than_may_wait_at_once_are_all_answered() {
    let host = Host::start(&[]);
    let mut client = host.client();
    create_topic(&mut client, "topic");
    let sent: Vec<_> =
        (0..300).map(|_| client.send(&produce("topic", b"value", -1), PRODUCE_VERSION)).collect();
    client.finish();
    for id in sent {
        assert_eq!(client.receive().unwrap().correlation_id, id);
    }
    assert!(client.is_closed());
}

#[test]
fn a_request_that_changes_something_waits_for_those_before_it() {
    let host = Host::start(&[]);
    let (mut client, mut other) = (host.client(), host.client());
    create_topic(&mut client, "first");
    client.send(&fetch("first", 0, FOREVER_MS), FETCH_VERSION);
    client.send(&create_topics("second", 1), CREATE_TOPICS_VERSION);
    client.send(&metadata_of("second"), METADATA_VERSION);
    let seen: MetadataResponse = other.call(&metadata_of("second"), METADATA_VERSION);
    assert_ne!(seen.topics[0].error_code, 0, "created before its turn");

    other.send(&produce("first", b"news", 1), PRODUCE_VERSION);
    assert_eq!(produced(&mut other), 0);
    assert!(fetched_bytes(&mut client) > 0);
    let created: CreateTopicsResponse = client.receive().unwrap().decode(CREATE_TOPICS_VERSION);
    assert_eq!(created.topics[0].error_code, 0);
    let metadata: MetadataResponse = client.receive().unwrap().decode(METADATA_VERSION);
    assert_eq!(metadata.topics[0].error_code, 0);
}

#[test]
fn what_came_before_a_malformed_request_is_answered_and_nothing_after_it_is_done() {
    let host = Host::start(&[]);
    let mut client = host.client();
    create_topic(&mut client, "topic");
    let good = frame(&produce("topic", b"value", -1), PRODUCE_VERSION, 7);
    let mut malformed = good.clone();
    malformed.truncate(good.len() - 40);
    set_length(&mut malformed);
    client.raw(&[&good[..], &malformed[..], &good[..]].concat());
    assert_eq!(produced(&mut client), 0);
    assert!(client.is_closed());
    assert_eq!(end_offset(&mut host.client(), "topic"), 1);
}

#[test]
fn a_failed_produce_without_acknowledgement_closes_and_one_that_succeeds_is_silent() {
    let host = Host::start(&[]);
    let mut client = host.client();
    create_topic(&mut client, "topic");
    client.send(&produce("topic", b"value", 0), PRODUCE_VERSION);
    client.prove();
    until_true("the record to be readable", LIMIT, || end_offset(&mut client, "topic") == 1);
    client.send(&produce("absent", b"value", 0), PRODUCE_VERSION);
    assert!(client.is_closed());
}

#[test]
fn a_client_that_has_closed_its_half_still_gets_its_answers() {
    let host = Host::start(&[]);
    let mut client = host.client();
    create_topic(&mut client, "topic");
    create_topic(&mut client, "empty");
    for _ in 0..10 {
        client.send(&produce("topic", b"value", -1), PRODUCE_VERSION);
    }
    client.send(&fetch("empty", 0, 100), FETCH_VERSION);
    client.send(&metadata_of("topic"), METADATA_VERSION);
    client.finish();
    assert_eq!(
        (0..10).map(|_| produced(&mut client)).collect::<Vec<_>>(),
        (0..10).collect::<Vec<_>>()
    );
    assert_eq!(fetched_bytes(&mut client), 0);
    let metadata: MetadataResponse = client.receive().unwrap().decode(METADATA_VERSION);
    assert_eq!(metadata.topics[0].error_code, 0);
    assert!(client.is_closed());
}

#[test]
fn a_client_that_never_reads_is_not_served_on_and_hurts_nobody() {
    let broker = Broker::start();
    client(&broker).prove();
    let before = resident_bytes(&broker);
    let deaf: Vec<_> = (0..5).map(|_| deaf_client(&broker)).collect();
    client(&broker).prove();
    let grown = resident_bytes(&broker).saturating_sub(before);
    println!("{} clients that never read took {} KiB", deaf.len(), grown / 1024);
    assert!(grown < 16 * 1024 * 1024, "{grown} bytes");
}

/// Sends requests until the broker takes no more of them.
pub(crate) fn deaf_client(broker: &Broker) -> Client {
    let client = client(broker);
    let requests = frame(&ApiVersionsRequest::default(), 0, 0).repeat(1024);
    let mut stream = client.stream();
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let full = loop {
        if let Err(error) = stream.write_all(&requests) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    client
}

#[test]
fn clients_that_never_pause_leave_room_for_others() {
    let host = Host::start(&[]);
    let address = host.address();
    let mut floods = Vec::new();
    let mut threads = Vec::new();
    for _ in 0..4 {
        let flood = Client::connect(address);
        let writer = flood.stream().try_clone().unwrap();
        let mut reader = flood.stream().try_clone().unwrap();
        let requests = frame(&ApiVersionsRequest::default(), 0, 0).repeat(1024);
        threads.push(std::thread::spawn(move || while (&writer).write_all(&requests).is_ok() {}));
        threads.push(std::thread::spawn(move || {
            drop(std::io::copy(&mut reader, &mut std::io::sink()));
        }));
        floods.push(flood);
    }
    for _ in 0..10 {
        host.client().prove();
    }
    for flood in &floods {
        flood.stream().shutdown(std::net::Shutdown::Both).unwrap();
    }
    for thread in threads {
        thread.join().unwrap();
    }
}
