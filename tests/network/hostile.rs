//! Requests that promise more than they hold, and bytes that are no requests at all.

use bytes::{BufMut, Bytes, BytesMut};
use klamm_protocol::ApiMessage;
use klamm_protocol::messages::create_topics_response::CreateTopicsResponse;
use klamm_protocol::messages::describe_topic_partitions_request::{
    DescribeTopicPartitionsRequest, TopicRequest,
};
use klamm_protocol::messages::describe_topic_partitions_response::DescribeTopicPartitionsResponse;
use klamm_protocol::messages::fetch_request::FetchRequest;
use klamm_protocol::messages::metadata_request::MetadataRequest;
use klamm_protocol::messages::metadata_response::MetadataResponse;
use klamm_testbed::Broker;

use crate::client::{Client, set_length};
use crate::host::Host;
use crate::process::{client, resident_bytes};
use crate::records::{CREATE_TOPICS_VERSION, METADATA_VERSION, create_topics, metadata_of};

/// A frame whose body is these bytes.
fn forged(api_key: i16, version: i16, body: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    frame.put_i16(api_key);
    frame.put_i16(version);
    frame.put_i32(1);
    frame.put_i16(-1);
    frame.put_slice(body);
    set_length(&mut frame);
    frame
}

#[test]
fn counts_that_no_request_can_hold_close_the_connection_and_cost_nothing() {
    let broker = Broker::start();
    let mut other = client(&broker);
    other.prove();
    let before = resident_bytes(&broker);
    let metadata = forged(MetadataRequest::API_KEY, 1, &i32::MAX.to_be_bytes());
    // Replica, wait, minimum, maximum, isolation level; then how many topics there are.
    let mut body = vec![0; 4 * 4 + 1];
    body.extend_from_slice(&100_000_000_i32.to_be_bytes());
    let fetch = forged(FetchRequest::API_KEY, 4, &body);
    for request in [metadata, fetch] {
        for _ in 0..20 {
            let mut client = client(&broker);
            client.raw(&request);
            assert!(client.is_closed());
        }
    }
    let grown = resident_bytes(&broker).saturating_sub(before);
    println!("forged counts took {} KiB", grown / 1024);
    assert!(grown < 32 * 1024 * 1024, "{grown} bytes");
    other.prove();
}

/// Numbers that look random and are the same in every run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> i16 {
        i16::try_from(self.next() % bound).unwrap()
    }

    fn bytes(&mut self, length: u64) -> Bytes {
        // Small numbers and zeros get further into a decoder than noise does.
        let byte = |numbers: &mut Self| {
            let number = numbers.next().to_be_bytes();
            if number[0] < 128 { 0 } else { number[1] >> (number[2] % 8) }
        };
        (0..length).map(|_| byte(self)).collect()
    }

    /// A frame that gets as far as the body of some API's request.
    fn request(&mut self) -> BytesMut {
        let (api_key, version, length) = (self.below(93), self.below(18), self.next() % 300);
        forged(api_key, version, &self.bytes(length))
    }
}

#[test]
fn random_bytes_on_a_thousand_connections_do_not_disturb_the_next_client() {
    let broker = Broker::start();
    client(&broker).prove();
    let before = resident_bytes(&broker);
    for round in 0..100 {
        let mut numbers = Numbers(round);
        let mut clients: Vec<_> = (0..10).map(|_| client(&broker)).collect();
        for (position, client) in clients.iter_mut().enumerate() {
            if position % 2 == 0 {
                client.prove();
            }
            if position % 5 == 0 {
                let length = numbers.next() % 2_000;
                client.raw(&numbers.bytes(length));
            } else {
                for _ in 0..5 {
                    client.raw(&numbers.request());
                }
            }
            // The broker may have closed already.
            drop(client.stream().shutdown(std::net::Shutdown::Write));
        }
        for client in &mut clients {
            while client.receive().is_some() {}
        }
    }
    client(&broker).prove();
    let grown = resident_bytes(&broker).saturating_sub(before);
    println!("random requests took {} KiB", grown / 1024);
    assert!(grown < 64 * 1024 * 1024, "{grown} bytes");
}

#[test]
fn random_bytes_to_a_controller_neither_stop_it_nor_the_broker_beside_it() {
    let host = Host::start(&[]);
    host.client().prove();
    let controller = host.addresses()[1];
    for round in 0..100 {
        let mut numbers = Numbers(round);
        let mut client = Client::connect(controller);
        client.prove();
        for _ in 0..50 {
            client.raw(&numbers.request());
        }
        drop(client.stream().shutdown(std::net::Shutdown::Write));
        while client.receive().is_some() {}
    }
    let mut client = host.client();
    let topics = create_topics("after", 1);
    let created: CreateTopicsResponse = client.call(&topics, CREATE_TOPICS_VERSION);
    assert_eq!(created.topics[0].error_code, 0);
}

#[test]
fn more_partitions_than_one_request_may_make_are_refused_and_leave_nothing_behind() {
    let host = Host::start(&[]);
    let mut client = host.client();
    for partitions in [10_001, i32::MAX] {
        let request = create_topics("huge", partitions);
        let answer: CreateTopicsResponse = client.call(&request, CREATE_TOPICS_VERSION);
        assert_ne!(answer.topics[0].error_code, 0);
        let seen: MetadataResponse = client.call(&metadata_of("huge"), METADATA_VERSION);
        assert_ne!(seen.topics[0].error_code, 0);
    }
}

#[test]
fn an_answer_describes_no_more_partitions_than_configured() {
    let host = Host::start(&[("max.request.partition.size.limit", "3")]);
    let mut client: Client = host.client();
    let created: CreateTopicsResponse =
        client.call(&create_topics("topic", 8), CREATE_TOPICS_VERSION);
    assert_eq!(created.topics[0].error_code, 0);
    let topic = TopicRequest { name: "topic".into() };
    let request = DescribeTopicPartitionsRequest {
        topics: vec![topic],
        response_partition_limit: i32::MAX,
        ..Default::default()
    };
    let answer: DescribeTopicPartitionsResponse = client.call(&request, 0);
    assert_eq!(answer.topics[0].partitions.len(), 3);
    assert_eq!(answer.next_cursor.unwrap().partition_index, 3);
}
