//! The traits of all generated messages.

use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};

use crate::decode::{DecodeError, Decoder};
use crate::encode::EncodeError;

/// A message or record of Kafka's schemas.
pub trait Message: Sized {
    /// The schema's name.
    const NAME: &'static str;
    /// The versions that this build can decode and encode.
    const VERSIONS: RangeInclusive<i16>;
    /// The first version in compact ("flexible") encoding with tagged fields (KIP-482).
    const FIRST_FLEXIBLE: Option<i16>;

    /// Decodes the message. Bytes after it stay in the decoder.
    fn decode(decoder: &mut Decoder, version: i16) -> Result<Self, DecodeError>;

    /// Appends the message to `out`.
    ///
    /// A field that `version` does not have is left out if it has its default or the schema marks it as ignorable;
    /// otherwise it is an error.
    fn encode(&self, out: &mut BytesMut, version: i16) -> Result<(), EncodeError>;

    /// The encoded message.
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
    /// Calls `count` with every error code in the response, including 0 (`NONE`) (Kafka's
    /// `AbstractResponse.errorCounts`).
    fn for_each_error_code(&self, count: &mut dyn FnMut(i16));
}

/// A request or response, or a record with its type on the wire.
pub trait ApiMessage: Message {
    /// The API's key, or the record's type.
    const API_KEY: i16;
}
