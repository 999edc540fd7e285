//! The principal of a request. Klamm has no authentication yet: every client is `User:ANONYMOUS`.

pub(crate) mod principal;
