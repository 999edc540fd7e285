//! This broker as a member of its cluster: its registration, the features it supports, the topics and producer ids that it
//! gets from the controller.

pub(crate) mod auto_topics;
pub(crate) mod broker_lifecycle;
pub(crate) mod controller_registration;
pub(crate) mod features;
pub(crate) mod internal_topics;
pub(crate) mod producer_ids;
mod returned_directories;
