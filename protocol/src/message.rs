//! What all generated messages can do.

use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};

use crate::decode::{DecodeError, Decoder};
use crate::encode::EncodeError;

/// A message or record of Kafka's schemas.
pub trait Message: Sized {
    /// The schema's name.
    const NAME: &'static str;
    /// The versions that this build can read and write.
    const VERSIONS: RangeInclusive<i16>;
    /// The first version in compact ("flexible") encoding with tagged fields (KIP-482).
    const FIRST_FLEXIBLE: Option<i16>;

    /// Reads the message. Bytes after it are left in the decoder.
    fn decode(decoder: &mut Decoder, version: i16) -> Result<Self, DecodeError>;

    /// Appends the message to `out`.
    ///
    /// A field that `version` does not have is left out if the schema says that it may be ignored,
    /// and is an error if it carries something.
    fn encode(&self, out: &mut BytesMut, version: i16) -> Result<(), EncodeError>;

    /// The message alone, as bytes.
    fn encoded(&self, version: i16) -> Result<Bytes, EncodeError> {
        let mut out = BytesMut::new();
        self.encode(&mut out, version)?;
        Ok(out.freeze())
    }

    /// Whether `version` is in compact encoding with tagged fields.
    fn is_flexible(version: i16) -> bool {
        Self::FIRST_FLEXIBLE.is_some_and(|first| version >= first)
    }
}

/// A response of an API.
pub trait ResponseMessage: Message {
    /// Calls `count` with every error code in the response, 0 (`NONE`) too (Kafka's `AbstractResponse.errorCounts`).
    fn for_each_error_code(&self, count: &mut dyn FnMut(i16));
}

/// A request or response, or a record that carries its type on the wire.
pub trait ApiMessage: Message {
    /// The API's key, or the record's type.
    const API_KEY: i16;
}
