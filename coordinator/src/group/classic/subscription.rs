//! The subscriptions of the members of a `consumer` group, as far as their metadata can be parsed.

use std::collections::BTreeSet;

use bytes::Bytes;
use bytestring::ByteString;
use klamm_protocol::messages::consumer_protocol_subscription::ConsumerProtocolSubscription;
use klamm_protocol::{Decoder, Message};

use super::ClassicGroup;
use crate::group::detach::detach;

/// The protocol type of Kafka's consumers.
pub(crate) const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// Every version of a subscription begins with the fields of version 0.
const SUBSCRIPTION_BASE_VERSION: i16 = 0;

impl ClassicGroup {
    /// The topics of all members; `None` if the group is not a `consumer` group or its metadata cannot be parsed.
    pub(crate) fn compute_subscribed_topics(&self) -> Option<BTreeSet<ByteString>> {
        if !self.uses_consumer_protocol() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol_name.as_ref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscribed_topics(member.metadata(protocol)?)?);
        }
        Some(topics)
    }

    /// Whether a member may be subscribed to the topic. In a consumer group with unknown subscriptions it may.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.uses_consumer_protocol(),
        }
    }
}

fn subscribed_topics(metadata: &Bytes) -> Option<impl Iterator<Item = ByteString>> {
    let mut decoder = Decoder::new(metadata.clone());
    let version = decoder.i16().ok()?;
    if version < SUBSCRIPTION_BASE_VERSION {
        return None;
    }
    let subscription =
        ConsumerProtocolSubscription::decode(&mut decoder, SUBSCRIPTION_BASE_VERSION).ok()?;
    Some(subscription.topics.into_iter().map(|topic| detach(&topic)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(metadata: &'static [u8]) -> Option<Vec<ByteString>> {
        subscribed_topics(&Bytes::from_static(metadata)).map(Iterator::collect)
    }

    #[test]
    fn any_version_of_a_subscription_is_read_as_far_as_version_0_goes() {
        let v0 = b"\0\0\0\0\0\x02\0\x01a\0\x01b\xff\xff\xff\xff";
        assert_eq!(topics(v0), Some(vec!["a".into(), "b".into()]));
        let v3 = b"\0\x03\0\0\0\x01\0\x01a\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xff\xff\xff";
        assert_eq!(topics(v3), Some(vec!["a".into()]));
    }

    #[test]
    fn metadata_that_is_no_subscription_is_unknown_and_not_empty() {
        assert_eq!(topics(b""), None);
        assert_eq!(topics(b"\xff\xff\0\0\0\0\xff\xff\xff\xff"), None);
        assert_eq!(topics(b"\0\0\0\0\0\x05\0\x01a"), None);
    }
}
