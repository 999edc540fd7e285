//! One file for each API, named after it: decode, decide or delegate, answer in the request's version.

pub(crate) mod api_versions;
pub(crate) mod delete_records;
pub(crate) mod describe_producers;
pub(crate) mod fetch;
pub(crate) mod list_offsets;
pub(crate) mod offset_for_leader_epoch;
pub(crate) mod produce;
