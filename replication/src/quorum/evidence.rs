//! When a voter learns that the leader's process has ended, it does not wait for the fetch timeout.
//!
//! A broken connection and a refused new one show it at once, while the fetch timeout takes seconds. Only the time of
//! the pre-vote depends on it, so a mistake costs one pre-vote that the others deny.

use super::Quorum;
use super::effect::Effect;
use super::role::Role;
use klamm_protocol::ids::BrokerId;

/// How long every voter waits, so that the others have noticed it too and grant the pre-vote.
const GRACE_MS: i64 = 30;
/// How much longer each voter waits than the one before it: two candidates at once would split the votes.
const TURN_MS: i64 = 80;

impl Quorum {
    /// No process listens at the address of node `id`: its process has ended.
    pub fn on_process_gone(&mut self, now_ms: i64, id: BrokerId) -> Vec<Effect> {
        self.assert_not_loading();
        let turn_ms = self.turn_ms(Some(id));
        let may_campaign = self.may_campaign();
        let followed = self.election.leader_id == Some(id);
        if let Role::Follower(follower) = &mut self.role
            && may_campaign
            && followed
        {
            let deadline_ms = now_ms.saturating_add(GRACE_MS + turn_ms);
            follower.fetch_deadline_ms = follower.fetch_deadline_ms.min(deadline_ms);
            // From now on this node grants pre-votes to the others.
            follower.has_fetched_from_leader = false;
        }
        self.proceed(now_ms)
    }

    /// How much longer this voter waits than the first one, when all lose the leader at the same time.
    pub(super) fn turn_ms(&self, leader_id: Option<BrokerId>) -> i64 {
        let others = self.voters().ids().filter(|voter| Some(*voter) != leader_id);
        let turn = others.take_while(|voter| *voter != self.config.local.id).count();
        i64::try_from(turn).expect("voters are few") * TURN_MS
    }
}
