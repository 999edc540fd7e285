//! Links between nodes that fail in one direction or lose packets, and a leader that is cut off: writes go on or move, no leader is
//! fought over, nobody acknowledges what others do not know of, and healing mends everything.

use std::time::{Duration, Instant};

use klamm_faults::Scene;
use klamm_protocol::ErrorCode;
use klamm_protocol::batch_builder::BatchBuilder;
use klamm_protocol::messages::produce_request::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use klamm_protocol::messages::produce_response::ProduceResponse;
use klamm_testbed::{Cluster, ClusterSetup, Flavour, Network, ask, until, until_true, within};

use crate::logs::assert_equal_replicas;
use crate::stage::{LOAD, alone, scene, victim};

/// Epochs of the quorum that one cut and its healing may use up: a step-down, an election or two, and one more after the healing.
const MAX_ELECTIONS: i32 = 4;
const LIMIT: Duration = Duration::from_secs(60);
/// `broker.session.timeout.ms`: how long a leader without word from the controller may believe that it leads.
const SESSION: Duration = Duration::from_secs(6);
/// What a leader may take longer than its session: a busy machine's time.
const SLACK: Duration = Duration::from_secs(4);
const PRODUCE_VERSION: i16 = 9;
/// How long a link is cut whose loss no partition may wait for. After so long TCP repeats what was lost in intervals of more
/// than ten seconds: a node that waited for that would hold up others when the next link is cut.
const CUT: Duration = Duration::from_secs(15);
/// The longest stall then: a second is aimed at, the client looks for leaders once a second, and the machine is busy.
const STALL_LIMIT: Duration = Duration::from_secs(6);
/// The leaders of one node move away, and back.
const MAX_LEADER_CHANGES: i32 = 6;
/// How long a network stays bad that loses packets all the time.
const BAD_TIMES: Duration = Duration::from_secs(10);

fn start(network: &Network) -> Scene {
    scene(setup(network).start())
}

fn on(network: &Network) -> ClusterSetup {
    (1..=3).fold(ClusterSetup::under_test(), |setup, id| {
        setup.on_host(id, &network.address(id), &network.namespace(id))
    })
}

fn setup(network: &Network) -> ClusterSetup {
    on(network)
        .set("replica.lag.time.max.ms", "3000")
        .set("broker.session.timeout.ms", &SESSION.as_millis().to_string())
}

fn epoch(scene: &Scene) -> i32 {
    until("the quorum's epoch", LIMIT, || scene.cluster().quorum().ok()).epoch
}

/// Cuts links one after another and checks that each is survived.
#[track_caller]
fn survive(links: impl Fn(&Scene) -> Vec<(i32, i32)>) {
    let _machine = alone();
    let network = Network::new(3);
    let scene = start(&network);
    for (from, to) in links(&scene) {
        let before = epoch(&scene);
        network.cut(from, to);
        scene.until_steady();
        network.heal();
        scene.until_steady();
        scene.cluster().until_whole();
        let elections = epoch(&scene) - before;
        assert!(elections <= MAX_ELECTIONS, "{elections} elections without {from} -> {to}");
    }
    scene.finish_without_anomaly();
}

/// The active controller and the two others.
fn roles(scene: &Scene) -> (i32, [i32; 2]) {
    let controller = scene.cluster().controller();
    let others = scene.cluster().ids().into_iter().filter(|id| *id != controller);
    let others: Vec<i32> = others.collect();
    (controller, others.try_into().expect("there are three nodes"))
}

#[test]
fn a_controller_that_one_node_does_not_hear_or_that_does_not_hear_one_node_is_lived_with() {
    survive(|scene| {
        let (controller, [one, other]) = roles(scene);
        vec![(controller, one), (one, controller), (controller, other), (other, controller)]
    });
}

#[test]
fn two_followers_that_do_not_hear_one_another_in_either_direction_are_lived_with() {
    survive(|scene| {
        let (_, [one, other]) = roles(scene);
        vec![(one, other), (other, one)]
    });
}

#[test]
fn a_network_that_loses_one_packet_in_twenty_slows_writes_and_moves_no_leader_in_circles() {
    let _machine = alone();
    let network = Network::new(3);
    let scene = start(&network);
    let before = epoch(&scene);
    network.lose(5);
    let end = Instant::now() + BAD_TIMES;
    while Instant::now() < end {
        scene.until_steady();
    }
    let elections = epoch(&scene) - before;
    assert!(elections <= MAX_ELECTIONS, "{elections} elections in {BAD_TIMES:?}");
    network.heal();
    scene.until_steady();
    scene.cluster().until_whole();
    scene.finish_without_anomaly();
}

/// Cuts links one after another, each for longer than a client waits, and checks that no partition stands still for
/// `replica.lag.time.max.ms`, which is Apache Kafka's 30 s here.
#[track_caller]
fn wait_for_nobody(links: impl Fn(&Scene) -> Vec<(i32, i32)>) {
    let _machine = alone();
    let network = Network::new(3);
    let mut scene = scene(on(&network).start());
    for (from, to) in links(&scene) {
        let before = scene.leader_epochs();
        let stalls = scene.measure(from, |_, _| {
            network.cut(from, to);
            within(CUT, || false);
            network.heal();
        });
        scene.cluster().until_whole();
        let longest = stalls.led.max(stalls.others);
        println!("{from} -> {to}: {stalls:?}");
        assert!(longest < STALL_LIMIT, "{from} -> {to} stalls writes: {stalls:?}");
        let changes = scene.leader_epochs() - before;
        assert!(changes <= MAX_LEADER_CHANGES, "{changes} leaders changed without {from} -> {to}");
    }
    scene.finish_without_anomaly();
}

#[test]
fn a_follower_that_its_leader_does_not_hear_or_that_does_not_hear_it_stalls_no_write_for_long() {
    wait_for_nobody(|scene| {
        let (_, [one, other]) = roles(scene);
        vec![(one, other), (other, one)]
    });
}

#[test]
fn a_leader_that_the_controller_does_not_hear_or_that_does_not_hear_it_stalls_no_write_for_long() {
    wait_for_nobody(|scene| {
        let (controller, [one, other]) = roles(scene);
        // The last node that loses its leaderships gives them to the one before it, whose change of an ISR the cut before has
        // held up.
        vec![(one, controller), (other, controller), (controller, one)]
    });
}

/// One record for partition 0 of a topic, sent to one node, and what it answers. No answer in time is `None`.
fn produce(address: &str, topic: &str, value: &str, acks: i16) -> Option<ErrorCode> {
    let mut batch = BatchBuilder::new(0);
    batch.append(1_000, None, Some(value.as_bytes()), &[]).expect("it is small");
    let records = Some(batch.build().expect("it is small").bytes);
    let data = PartitionProduceData { index: 0, records };
    let topic =
        TopicProduceData { name: topic.into(), partition_data: vec![data], ..Default::default() };
    let topic_data = vec![topic];
    let request = ProduceRequest { acks, timeout_ms: 1_000, topic_data, ..Default::default() };
    let answer: ProduceResponse = ask(address, &request, PRODUCE_VERSION).ok()?;
    let code = answer.responses.first()?.partition_responses.first()?.error_code;
    Some(ErrorCode::from_code(code).expect("a code of Kafka's"))
}

/// What became of records that were sent to one side of a cut and to the other.
#[derive(Debug, Default)]
struct Fates {
    acknowledged: Vec<String>,
    count: usize,
}

impl Fates {
    /// Sends a record of its own with acks=all, and remembers it if it is acknowledged.
    fn send(&mut self, address: &str, topic: &str) -> Option<ErrorCode> {
        self.count += 1;
        let value = format!("record {}", self.count);
        let code = produce(address, topic, &value, -1);
        if code == Some(ErrorCode::None) {
            self.acknowledged.push(value);
        }
        code
    }
}

/// Checks that a leader that is cut off acknowledges nothing that only it has, once its session is over.
fn assert_silenced(address: &str, topic: &str, fates: &mut Fates) {
    let alone = fates.send(address, topic);
    assert_ne!(alone, Some(ErrorCode::None), "acks=all is acknowledged by a leader alone");
    // Apache Kafka's leader goes on with acks=1 for as long as it is cut off.
    if Flavour::under_test() == Flavour::Klamm {
        until_true("acks=1 to be refused", SESSION + SLACK, || {
            let sent = produce(address, topic, "unwarranted", 1);
            sent == Some(ErrorCode::NotLeaderOrFollower)
        });
        let again = produce(address, topic, "unwarranted", 1);
        assert_eq!(again, Some(ErrorCode::NotLeaderOrFollower), "and it stays refused");
        // A timeout would not make a client look for another leader.
        let all = fates.send(address, topic);
        assert_eq!(all, Some(ErrorCode::NotLeaderOrFollower), "acks=all is refused as well");
    }
    let later = fates.send(address, topic);
    assert_ne!(later, Some(ErrorCode::None), "acks=all is acknowledged by a leader alone");
}

/// Cuts a node off from both others while clients reach every one of them.
#[track_caller]
fn cut_off(of_controller: bool) {
    let _machine = alone();
    let network = Network::new(3);
    let scene = start(&network);
    let isolated = victim(&scene, of_controller);
    let others: Vec<i32> = scene.cluster().ids().into_iter().filter(|id| *id != isolated).collect();
    let assignment = [vec![isolated, others[0], others[1]]];
    let config = [("min.insync.replicas", "2")];
    let topic = scene.cluster().create_topic("divided", &assignment, &config);
    let address = |id: i32| scene.cluster().node(id).client().expect("a broker").to_owned();
    let mut fates = Fates::default();
    assert_eq!(fates.send(&address(isolated), &topic), Some(ErrorCode::None));
    for other in &others {
        network.cut(isolated, *other);
        network.cut(*other, isolated);
    }
    assert_silenced(&address(isolated), &topic, &mut fates);
    // The others go on without it.
    until_true("another leader", LIMIT, || {
        others.iter().any(|id| fates.send(&address(*id), &topic) == Some(ErrorCode::None))
    });
    scene.until_steady();
    network.heal();
    scene.until_steady();
    scene.cluster().until_whole();
    let load = scene.topic().to_owned();
    let mut cluster = scene.finish_without_anomaly();
    assert_stored(&cluster, &topic, &fates.acknowledged);
    cluster.kill_all();
    assert_equal_replicas(&cluster, &topic, 1);
    assert_equal_replicas(&cluster, &load, LOAD.partitions);
}

/// Every acknowledged record is there once, in the order in which they were sent.
fn assert_stored(cluster: &Cluster, topic: &str, acknowledged: &[String]) {
    let consume =
        format!("kafka-console-consumer --topic {topic} --from-beginning --timeout-ms 5000");
    let output = cluster.tool(&consume).ok();
    let stored: Vec<&str> =
        output.lines().filter(|value| acknowledged.iter().any(|sent| sent == value)).collect();
    assert_eq!(stored, acknowledged);
}

#[test]
fn a_leader_that_is_cut_off_from_both_others_acknowledges_nothing_and_agrees_with_them_afterwards()
{
    cut_off(false);
}

#[test]
fn an_active_controller_that_is_cut_off_from_both_others_acknowledges_nothing_either() {
    cut_off(true);
}

/// As Apache Kafka, and at its price: what is acknowledged while others lead is lost.
#[test]
fn without_a_lease_a_leader_that_is_cut_off_goes_on_with_acks_1() {
    let _machine = alone();
    let network = Network::new(3);
    let scene = scene(setup(&network).set("failover.leader.lease.enable", "false").start());
    let isolated = victim(&scene, false);
    let others: Vec<i32> = scene.cluster().ids().into_iter().filter(|id| *id != isolated).collect();
    let assignment = [vec![isolated, others[0], others[1]]];
    let topic = scene.cluster().create_topic("unconfirmed", &assignment, &[]);
    let address = |id: i32| scene.cluster().node(id).client().expect("a broker").to_owned();
    for other in &others {
        network.cut(isolated, *other);
        network.cut(*other, isolated);
    }
    until_true("another leader", LIMIT, || {
        others.iter().any(|id| produce(&address(*id), &topic, "led", 1) == Some(ErrorCode::None))
    });
    let end = Instant::now() + SESSION + SLACK;
    while Instant::now() < end {
        let sent = produce(&address(isolated), &topic, "unconfirmed", 1);
        // A busy machine may be late with an answer.
        assert!(matches!(sent, Some(ErrorCode::None) | None), "{sent:?}");
    }
    network.heal();
    scene.until_steady();
    scene.cluster().until_whole();
    scene.finish_without_anomaly();
}
