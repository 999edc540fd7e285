//! All messages and records of Kafka 4.3.1's schemas, generated at build time from `schema/`.
//!
//! One module per message, named after it in snake case; the structs in it have the schema's names, and their fields
//! are in snake case. A field that may be null in some version is an `Option`. `Default` gives the schema's defaults.

#![allow(
    unused_assignments,
    unused_mut,
    unused_variables,
    dead_code,
    clippy::all,
    reason = "generated: every message gets the same shape, whatever it needs of it"
)]

mod prelude {
    #![allow(unused_imports, unreachable_pub, reason = "one prelude for all generated modules")]
    pub use std::ops::RangeInclusive;

    pub use bytes::{BufMut, Bytes, BytesMut};
    pub use bytestring::ByteString;

    pub use crate::Uuid;
    pub use crate::decode::{DecodeError, Decoder};
    pub use crate::encode::{
        EncodeError, TaggedFields, put_array_len, put_bytes, put_null_bytes, put_null_string,
        put_string, put_unsigned_varint,
    };
    pub use crate::message::{ApiMessage, Message, ResponseMessage};
}

use prelude::*;

/// An API of the protocol, from the schemas. The broker's own table has the served and advertised versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Api {
    pub key: i16,
    pub name: &'static str,
    /// First and last version of the schema.
    pub versions: (i16, i16),
    /// The last version is not stable: a broker does not offer it.
    pub latest_unstable: bool,
    pub request_flexible_from: i16,
    pub response_flexible_from: i16,
    /// Kafka's brokers serve it on their listeners.
    pub on_broker: bool,
    /// Kafka's controllers serve it on theirs.
    pub on_controller: bool,
}

include!(concat!(env!("OUT_DIR"), "/messages.rs"));
