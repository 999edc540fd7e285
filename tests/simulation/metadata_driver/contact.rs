//! From whom a node has heard, for the invariant that a leader without a majority resigns in time: counted beside the
//! quorum, which counts for itself.

use super::NodeStep;
use crate::message::{Address, Sender};
use crate::observation::{Life, Observation};
use klamm_protocol::ids::{BrokerId, Offset};
use klamm_replication::quorum::Quorum;
use klamm_replication::quorum::message::Request;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Contact {
    /// When each other voter was last heard from, while this node leads.
    heard: BTreeMap<BrokerId, i64>,
    /// Since when this node leads these voters: the offset of their record tells them apart.
    leads_since_ms: Option<(Option<Offset>, i64)>,
    /// The last fetch of each voter, for a driver that counts old contact.
    last_fetches: BTreeMap<BrokerId, Request>,
}

impl Contact {
    pub(super) fn on_request(&mut self, from: Sender, request: &Request, now_ms: i64) {
        let Address::Node(id) = from.address else { return };
        if matches!(
            request,
            Request::Fetch(_) | Request::FetchSnapshot(_) | Request::UpdateVoter(_)
        ) {
            self.heard.insert(id, now_ms);
        }
        if matches!(request, Request::Fetch(_)) {
            self.last_fetches.insert(id, request.clone());
        }
    }

    pub(super) fn last_fetches(&self) -> Vec<Request> {
        self.last_fetches.values().cloned().collect()
    }

    /// How long ago the leader had last heard from a majority.
    pub(super) fn observe_majority(
        &mut self,
        life: Life,
        quorum: &Quorum,
        step: &mut NodeStep<'_>,
    ) {
        if !quorum.is_leader() {
            self.leads_since_ms = None;
            return;
        }
        let history = &quorum.membership().voters;
        let led = self.leads_since_ms.filter(|(offset, _)| *offset == history.latest_offset());
        let (_, since_ms) = led.unwrap_or((history.latest_offset(), step.now_ms));
        self.leads_since_ms = Some((history.latest_offset(), since_ms));
        let voters = history.latest();
        let others = voters.ids().filter(|id| *id != life.0);
        let heard = |id| self.heard.get(&id).copied().unwrap_or(since_ms).max(since_ms);
        let mut heard: Vec<i64> = others.map(heard).collect();
        heard.sort_unstable_by(|one, other| other.cmp(one));
        let needed = voters.majority() - usize::from(voters.get(life.0).is_some());
        if let Some(at_ms) = needed.checked_sub(1).map(|index| heard[index]) {
            let silent_ms = step.now_ms - at_ms;
            step.observe(Observation::QuorumSilent { life, others: needed, silent_ms });
        }
    }
}
