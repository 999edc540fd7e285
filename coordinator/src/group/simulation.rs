//! Random clients against one group on a log that stalls, refuses and fails over.
//!
//! After every step: the group is consistent and has a timer or request that will wake it; replaying the log gives the
//! durable state; acknowledged and fetched offsets are in the committed log; an assignment that a member got is the one
//! in the log for its generation. At the end every request was answered once.

use std::collections::BTreeMap;

use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::join_group_request::JoinGroupRequest;
use klamm_protocol::messages::leave_group_request::MemberIdentity;

use super::classic::ClassicGroup;
use super::classic::state::State;
use super::config::GroupConfig;
use super::harness::{
    GROUP, Harness, TOPIC, committing, committing_as, fetch_one, joining, protocol, topic_id,
};
use super::offsets::topic_deletion::DeletedTopic;
use super::response::Response;
use super::shard::{GroupShard, Timer};
use crate::runtime::{RequestToken, Shard};

const STEPS: usize = 400;
const SEEDS: u64 = 120;
const INSTANCES: [&str; 2] = ["i1", "i2"];
const ASSIGNMENTS: [&str; 4] = ["p0", "p1", "p2", "p3"];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { Some(from[self.below(from.len())].clone()) }
    }
}

struct Simulation {
    random: Random,
    harness: Harness,
    joins: Vec<RequestToken>,
    syncs: BTreeMap<RequestToken, (ByteString, i32)>,
    commits: BTreeMap<RequestToken, i64>,
    fetches: Vec<RequestToken>,
    /// Member ids and generations that clients know, current or outdated.
    known: Vec<(ByteString, i32)>,
    next_offset: i64,
    /// The highest offset that a client knows as committed.
    owed_offset: i64,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let max_size = if random.below(3) == 0 { 2 } else { 100 };
        let config = GroupConfig { max_size, ..GroupConfig::default() };
        Self {
            random,
            harness: Harness::with_config(config),
            joins: Vec::new(),
            syncs: BTreeMap::new(),
            commits: BTreeMap::new(),
            fetches: Vec::new(),
            known: Vec::new(),
            next_offset: 0,
            owed_offset: -1,
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            self.step();
            self.learn();
            self.check();
        }
        self.harness.fail_over();
        self.learn();
        self.check();
    }

    fn step(&mut self) {
        if self.random.below(12) == 0 {
            self.harness.next_append_error = Some(ErrorCode::NotEnoughReplicas);
        }
        match self.random.below(16) {
            0..=3 => self.join(),
            4..=6 => self.sync(),
            7 => self.leave(),
            8..=9 => self.commit_offset(),
            10 => self.fetch_offset(),
            11 => {
                if let Some((member_id, generation)) = self.random.pick(&self.known) {
                    // The answer does not matter here: a fenced member must change nothing.
                    let _: ErrorCode = self.harness.heartbeat(generation, &member_id);
                }
            }
            12..=13 => {
                let by_ms = [1, 100, 3_000, 6_000, 21_000][self.random.below(5)];
                self.harness.advance(by_ms);
            }
            14 => {
                self.harness.holds_commits = self.random.below(2) == 0;
                if !self.harness.holds_commits {
                    self.harness.commit();
                } else if self.harness.committed < self.harness.log.len() {
                    self.harness.commit_up_to(self.harness.committed + 1);
                }
            }
            _ => self.disturb(),
        }
        self.harness.next_append_error = None;
    }

    fn join(&mut self) {
        let version = [3, 4, 5, 9][self.random.below(4)];
        let member = if self.random.below(3) == 0 { None } else { self.random.pick(&self.known) };
        let member_id = member.map(|(member_id, _)| member_id).unwrap_or_default();
        let instance_id =
            if self.random.below(3) == 0 { self.random.pick(&INSTANCES) } else { None };
        let mut protocols = vec![protocol("range", "m"), protocol("sticky", "m")];
        match self.random.below(4) {
            0 => protocols.reverse(),
            1 => protocols.truncate(1),
            _ => {}
        }
        let group_instance_id = instance_id.map(ByteString::from_static);
        let request = JoinGroupRequest { group_instance_id, protocols, ..joining(&member_id) };
        let token = self.harness.join(version, request);
        self.joins.push(token);
    }

    fn sync(&mut self) {
        let Some((member_id, generation)) = self.random.pick(&self.known) else { return };
        let part = ASSIGNMENTS[self.random.below(4)];
        let everybody: Vec<ByteString> =
            self.known.iter().map(|(member_id, _)| member_id.clone()).collect();
        let assignments: Vec<_> = everybody.iter().map(|member_id| (member_id, part)).collect();
        let token = self.harness.sync(generation, &member_id, &assignments);
        self.syncs.insert(token, (member_id, generation));
    }

    fn leave(&mut self) {
        let mut members = Vec::new();
        if let Some((member_id, _)) = self.random.pick(&self.known) {
            members.push(MemberIdentity { member_id, ..Default::default() });
        }
        let instance_id = self.random.pick(&INSTANCES).map(ByteString::from_static);
        if self.random.below(2) == 0 {
            members.push(MemberIdentity { group_instance_id: instance_id, ..Default::default() });
        }
        let request = klamm_protocol::messages::leave_group_request::LeaveGroupRequest {
            group_id: GROUP.into(),
            members,
            ..Default::default()
        };
        self.harness.send(|shard, token, effects| shard.on_leave_group(token, &request, effects));
    }

    fn commit_offset(&mut self) {
        self.next_offset += 1;
        let request = match self.random.pick(&self.known) {
            Some((member_id, generation)) if self.random.below(2) == 0 => {
                committing_as(&member_id, generation, self.next_offset)
            }
            _ => committing(self.next_offset),
        };
        let token = self.harness.commit_request(&request);
        self.commits.insert(token, self.next_offset);
    }

    fn fetch_offset(&mut self) {
        let is_stable = self.random.below(2) == 0;
        let token = self.harness.fetch(&fetch_one(), is_stable);
        self.fetches.push(token);
    }

    fn disturb(&mut self) {
        match self.random.below(4) {
            0..=1 => self.harness.fail_over(),
            2 => {
                let group = [GROUP.into()];
                self.forget_offset();
                self.harness.send(|shard, token, effects| {
                    shard.on_delete_groups(token, &group, effects);
                });
            }
            _ => {
                let topic = DeletedTopic { topic_id: topic_id(), name: TOPIC.into() };
                self.forget_offset();
                self.harness.call(|shard, effects| shard.on_topics_deleted(&[topic], effects));
            }
        }
    }

    /// A deletion may or may not succeed: clients can expect none of the offsets that it may delete.
    fn forget_offset(&mut self) {
        self.owed_offset = -1;
        self.commits.clear();
        self.fetches.clear();
    }

    /// Updates the clients' knowledge from the answers.
    fn learn(&mut self) {
        for token in std::mem::take(&mut self.joins) {
            match self.harness.find_answer(token) {
                None => self.joins.push(token),
                Some(Response::JoinGroup(answer)) => {
                    let member = (answer.member_id.clone(), answer.generation_id);
                    self.known.push(member);
                }
                Some(other) => panic!("{other:?} answers a JoinGroup"),
            }
        }
        if self.known.len() > 8 {
            let outdated = self.random.below(8);
            self.known.remove(outdated);
        }
        self.learn_offsets();
        self.learn_assignments();
    }

    fn learn_offsets(&mut self) {
        let harness = &self.harness;
        let owed_offset = &mut self.owed_offset;
        self.commits.retain(|token, offset| {
            let is_answered = harness.find_answer(*token).is_some();
            if is_answered && harness.commit_error(*token) == ErrorCode::None {
                *owed_offset = (*owed_offset).max(*offset);
            }
            !is_answered
        });
        self.fetches.retain(|token| {
            let Some(answer) = harness.find_answer(*token) else { return true };
            let Response::OffsetFetch(answer) = answer else { panic!("not an OffsetFetch") };
            if answer.error_code == 0 {
                let shown = answer.topics[0].partitions[0].committed_offset;
                *owed_offset = (*owed_offset).max(shown);
            }
            false
        });
    }

    fn learn_assignments(&mut self) {
        let stored = replayed(&self.harness, self.harness.committed);
        for (token, (member_id, generation)) in std::mem::take(&mut self.syncs) {
            match self.harness.find_answer(token) {
                None => {
                    self.syncs.insert(token, (member_id, generation));
                }
                Some(Response::SyncGroup(answer)) if answer.error_code == 0 => {
                    let group = stored.classic_group(GROUP).expect("the group is stored");
                    assert_eq!(group.generation_id, generation);
                    let member = group.member(&member_id);
                    let member = member.expect("an assignment goes to a stored member");
                    assert_eq!(member.assignment, answer.assignment);
                }
                Some(Response::SyncGroup(_)) => {}
                Some(other) => panic!("{other:?} answers a SyncGroup"),
            }
        }
    }

    /// Checks that a stable group equals its last record. Only the id of a static member may differ: one that rejoined
    /// has its former id again if the record of the new one was not committed in time.
    fn check_stored(&self, group: &ClassicGroup) {
        let stored = self.harness.stored_group();
        assert_eq!(stored.generation, group.generation_id);
        assert_eq!((stored.protocol_type, stored.protocol), {
            (group.protocol_type.clone().unwrap_or_default(), group.protocol_name.clone())
        });
        let stored_members: BTreeMap<_, _> = stored
            .members
            .iter()
            .map(|member| {
                let identity = identity(&member.member_id, member.group_instance_id.as_ref());
                (identity, member.assignment.clone())
            })
            .collect();
        let members = group.members().map(|member| {
            let identity = identity(&member.member_id, member.group_instance_id.as_ref());
            (identity, member.assignment.clone())
        });
        assert_eq!(stored_members, members.collect());
    }

    fn check(&self) {
        let shard = self.harness.shard();
        let stored = replayed(&self.harness, self.harness.log.len());
        assert_eq!(stored.offsets, shard.offsets);
        let committed = replayed(&self.harness, self.harness.committed);
        let offset = committed.offsets.committed(GROUP, TOPIC, 0).map_or(-1, |found| found.offset);
        assert!(offset >= self.owed_offset, "{offset} is stored, {} is owed", self.owed_offset);
        let Some(group) = shard.classic_group(GROUP) else {
            assert!(stored.groups.is_empty(), "a stored group is gone");
            return;
        };
        group.assert_consistent();
        if group.state() == State::Stable {
            self.check_stored(group);
        }
        let is_set = |timer| self.harness.is_set(&timer);
        let group_id = || GROUP.into();
        let join_timer = is_set(Timer::Join { group_id: group_id() });
        assert_eq!(join_timer, group.state() == State::PreparingRebalance);
        let sync_timer = is_set(Timer::Sync { group_id: group_id() });
        assert_eq!(sync_timer, group.has_pending_sync());
        for member in group.members() {
            let timer =
                Timer::Session { group_id: group_id(), member_id: member.member_id.clone() };
            let is_watched = is_set(timer) || member.has_satisfied_heartbeat();
            assert!(is_watched, "member {} never expires", member.member_id);
        }
    }
}

/// The identity of a member across rejoins: the instance id of a static one.
fn identity(member_id: &ByteString, instance_id: Option<&ByteString>) -> ByteString {
    instance_id.unwrap_or(member_id).clone()
}

fn replayed(harness: &Harness, records: usize) -> GroupShard {
    let mut stored = GroupShard::new(harness.config.clone());
    for (offset, record) in (0..).zip(&harness.log[..records]) {
        stored.replay(offset, None, record.key.clone(), record.value.clone()).unwrap();
    }
    stored
}

#[test]
fn random_clients_never_lose_an_answer_an_offset_or_an_assignment() {
    for seed in 0..SEEDS {
        let run = std::panic::catch_unwind(|| Simulation::new(seed).run());
        assert!(run.is_ok(), "seed {seed} fails");
    }
}
