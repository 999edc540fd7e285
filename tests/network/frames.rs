//! Lengths, pieces and foreign protocols.

use std::sync::LazyLock;

use bytes::BytesMut;
use klamm_protocol::messages::api_versions_request::ApiVersionsRequest;
use klamm_testbed::{Broker, until_true};

use crate::LIMIT;
use crate::client::{frame, padded};
use crate::host::Host;
use crate::process::{client, log, resident_bytes};

const MIB: usize = 1024 * 1024;
/// What a connection that has not proven itself may send at once.
const FIRST_FRAME_MAX_BYTES: usize = 512 * 1024;

static BROKER: LazyLock<&Broker> = LazyLock::new(Broker::shared);

#[test]
fn a_length_that_no_request_can_have_closes_the_connection() {
    for length in [i32::MIN, -1, 0, 104_857_601, i32::MAX] {
        for proven in [false, true] {
            let mut client = client(&BROKER);
            if proven {
                client.prove();
            }
            client.raw(&length.to_be_bytes());
            assert!(client.is_closed(), "{length}, proven: {proven}");
        }
    }
}

#[test]
fn a_first_request_may_be_512_kib_and_a_later_one_as_large_as_configured() {
    let host = Host::start(&[("socket.request.max.bytes", "1048576")]);
    let mut stranger = host.client();
    stranger.raw(&padded(FIRST_FRAME_MAX_BYTES + 1)[..1024]);
    assert!(stranger.is_closed());

    let mut client = host.client();
    client.raw(&padded(FIRST_FRAME_MAX_BYTES));
    assert_eq!(client.receive().unwrap().correlation_id, 0);
    client.raw(&padded(MIB));
    assert_eq!(client.receive().unwrap().correlation_id, 0);
    client.raw(&padded(MIB + 1)[..1024]);
    assert!(client.is_closed());
}

#[test]
fn a_request_is_answered_wherever_it_is_split() {
    let whole = frame(&ApiVersionsRequest::default(), 0, 5);
    let mut other = client(&BROKER);
    for at in 1..whole.len() {
        let mut client = client(&BROKER);
        client.raw(&whole[..at]);
        // The answer to another client says that the broker had time to see the first part.
        other.prove();
        client.raw(&whole[at..]);
        assert_eq!(client.receive().unwrap().correlation_id, 5, "split at {at}");
    }
}

#[test]
fn requests_that_come_byte_by_byte_are_answered() {
    let mut client = client(&BROKER);
    let mut two = frame(&ApiVersionsRequest::default(), 0, 1);
    two.unsplit(frame(&ApiVersionsRequest::default(), 0, 2));
    for byte in two {
        client.raw(&[byte]);
    }
    assert_eq!(client.receive().unwrap().correlation_id, 1);
    assert_eq!(client.receive().unwrap().correlation_id, 2);
}

#[test]
fn tls_and_http_clients_are_closed_and_named_in_the_log() {
    let greetings: [(&[u8], &str); 2] = [
        (b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03", "speaks TLS"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "speaks HTTP"),
    ];
    for (greeting, words) in greetings {
        let mut client = client(&BROKER);
        let port = client.stream().local_addr().unwrap().port();
        client.raw(greeting);
        assert!(client.is_closed());
        until_true(words, LIMIT, || {
            log(&BROKER)
                .lines()
                .any(|line| line.contains(words) && line.contains(&format!(":{port} closed")))
        });
    }
}

#[test]
fn a_thousand_announced_lengths_reserve_no_memory() {
    let broker = Broker::start();
    client(&broker).prove();
    let before = resident_bytes(&broker);
    let mut announcement = BytesMut::from(&104_857_600_i32.to_be_bytes()[..]);
    announcement.extend_from_slice(&[0, 3]);
    let mut clients = Vec::new();
    for _ in 0..1_000 {
        let mut client = client(&broker);
        client.prove();
        client.raw(&announcement);
        clients.push(client);
    }
    client(&broker).prove();
    let grown = resident_bytes(&broker).saturating_sub(before);
    println!("1,000 announced requests of 100 MiB took {} KiB", grown / 1024);
    assert!(grown < 64 * 1024 * 1024, "{grown} bytes");
    assert_eq!(clients.len(), 1_000);
}
