//! Wire messages, record messages, record batches and the small types that all crates use. Pure: no IO, no clock, no
//! async.

pub mod batch;
pub mod batch_builder;
pub mod compression;
pub mod control_record;
pub mod crc;
pub mod decode;
pub mod encode;
pub mod error_code;
pub mod fetch_response;
pub mod ids;
pub mod message;
pub mod messages;
pub mod metadata_record;
pub mod produce_validation;
pub mod record;
pub mod time;
mod uuid;
pub mod varint;

pub use decode::{DecodeError, Decoder};
pub use encode::EncodeError;
pub use error_code::ErrorCode;
pub use message::{ApiMessage, Message, ResponseMessage};
pub use metadata_record::MetadataRecord;
pub use uuid::{Uuid, UuidError};
