//! A broker's process: how fast it answers, how it ends, and which directories it refuses.

use std::process::Command;
use std::time::{Duration, Instant};

use klamm_protocol::messages::api_versions_request::ApiVersionsRequest;
use klamm_testbed::{Broker, Directory, Program, Running, free_port, until_true};

use crate::LIMIT;
use crate::client::Client;
use crate::pipelining::deaf_client;
use crate::process::client;
use crate::records::{FETCH_VERSION, PRODUCE_VERSION, create_topic, end_offset, fetch, produce};

/// A stop waits for no client.
const STOPS_WITHIN: Duration = Duration::from_secs(3);

fn klamm(directory: &Directory, port: u16, data: &str, variables: &[(&str, &str)]) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_klamm"));
    command.env_clear().envs(variables.iter().copied());
    let data = directory.path().join(data);
    Program::from(command)
        .args(["--override", &format!("log.dirs={}", data.display())])
        .args([
            "--override",
            &format!("listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:0"),
        ])
        .in_dir(directory.path())
        .start()
}

/// Waits for the first answer.
fn until_answers(port: u16) {
    until_true("the first answer", LIMIT, || {
        let Ok(stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else { return false };
        drop(stream);
        let mut client = Client::connect(([127, 0, 0, 1], port).into());
        client.send(&ApiVersionsRequest::default(), 0);
        client.receive().is_some()
    });
}

#[test]
fn a_broker_stops_at_once_whatever_its_clients_are_doing_and_starts_again() {
    let mut broker = Broker::start();
    let mut waiting = client(&broker);
    create_topic(&mut waiting, "topic");
    waiting.send(&produce("topic", b"value", -1), PRODUCE_VERSION);
    assert!(waiting.receive().is_some());
    waiting.send(&fetch("topic", 1, 600_000), FETCH_VERSION);
    let mut idle = client(&broker);
    idle.prove();
    let mut unfinished = client(&broker);
    unfinished.raw(&[0, 0, 0, 10, 0]);
    let deaf = deaf_client(&broker);

    let asked = Instant::now();
    let status = broker.stop();
    let took = asked.elapsed();
    println!("stopped in {took:?}");
    assert_eq!(status.code(), Some(0));
    assert!(took < STOPS_WITHIN, "{took:?}");
    assert!(broker.data().join(".kafka_cleanshutdown").exists());
    assert!(idle.is_closed() && unfinished.is_closed());
    // A fetch may still be told that its partition has no leader any more.
    while waiting.receive().is_some() {}
    drop(deaf);

    broker.start_again();
    assert_eq!(end_offset(&mut client(&broker), "topic"), 1);
}

#[test]
fn the_first_answer_comes_at_once_on_a_new_and_on_an_old_directory() {
    let directory = Directory::new("lifecycle");
    for kind in ["new", "old"] {
        let port = free_port();
        let started = Instant::now();
        let broker = klamm(&directory, port, "data", &[]);
        until_answers(port);
        let took = started.elapsed();
        println!("first answer on a {kind} directory after {took:?}");
        assert!(took < Duration::from_secs(2), "{kind}: {took:?}");
        broker.terminate();
        assert_eq!(broker.wait(LIMIT).status, 0);
    }
}

#[test]
fn a_directory_that_another_broker_uses_ends_the_second_with_three() {
    let directory = Directory::new("lifecycle");
    let port = free_port();
    let first = klamm(&directory, port, "data", &[]);
    until_answers(port);
    let second = klamm(&directory, free_port(), "data", &[]).wait(LIMIT);
    assert_eq!(second.status, 3, "{second}");
    let data = directory.path().join("data").display().to_string();
    assert!(second.to_string().contains(&data), "{second}");
    first.terminate();
    assert_eq!(first.wait(LIMIT).status, 0);
}

#[test]
fn a_directory_of_another_cluster_ends_with_three() {
    let directory = Directory::new("lifecycle");
    let port = free_port();
    let owner = klamm(&directory, port, "data", &[("CLUSTER_ID", "4L6g3nShT-eMCtK--X86sw")]);
    until_answers(port);
    owner.terminate();
    assert_eq!(owner.wait(LIMIT).status, 0);
    let other = [("CLUSTER_ID", "3Db5QLSqSZieL3rJBUUegA")];
    let stranger = klamm(&directory, free_port(), "data", &other).wait(LIMIT);
    assert_eq!(stranger.status, 3, "{stranger}");
    assert!(stranger.to_string().contains("4L6g3nShT-eMCtK--X86sw"), "{stranger}");
    assert!(stranger.to_string().contains("3Db5QLSqSZieL3rJBUUegA"), "{stranger}");
}
