//! One file for each API, named after it: decode, decide or delegate, answer in the request's version.

pub(crate) mod api_versions;
pub(crate) mod fetch;
pub(crate) mod produce;
