//! What a voter does when it learns that the leader's process is gone: it does not wait for the fetch timeout.
//!
//! A connection that breaks and an address that refuses the next one say so at once, where silence takes seconds.
//! Nothing but the time of the pre-vote depends on it, so a mistake costs a pre-vote that the others deny.

use super::Quorum;
use super::effect::Effect;
use super::role::Role;
use klamm_protocol::ids::BrokerId;

/// How long every voter waits, so that the others have learnt of it as well and no longer count on the leader.
const GRACE_MS: i64 = 30;
/// What each voter waits longer than the one before it: two at once would take each other's votes.
const TURN_MS: i64 = 80;

impl Quorum {
    /// Nobody listens where node `id` is reached: its process is gone.
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
            // The others may campaign as well.
            follower.has_fetched_from_leader = false;
        }
        self.proceed(now_ms)
    }

    /// How much longer this voter waits than the first of those who lose the leader at once.
    pub(super) fn turn_ms(&self, leader_id: Option<BrokerId>) -> i64 {
        let others = self.voters().ids().filter(|voter| Some(*voter) != leader_id);
        let turn = others.take_while(|voter| *voter != self.config.local.id).count();
        i64::try_from(turn).expect("voters are few") * TURN_MS
    }
}
