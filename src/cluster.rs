//! This broker as a member of its cluster: its registration, the features it supports, the topics and producer ids that it
//! gets from the controller.

pub(crate) mod auto_topics;
pub(crate) mod features;
pub(crate) mod internal_topics;
pub(crate) mod producer_ids;
pub(crate) mod registration;
