//! Copies of strings and bytes that do not keep the buffer they were decoded from.
//!
//! Decoded strings and bytes are slices of a request frame or of a block read from the log. State that lives for days
//! must not keep such a buffer alive, so everything that is kept is copied here once.

use bytes::Bytes;
use bytestring::ByteString;

/// The same text in an allocation of its own.
pub(crate) fn detach(text: &ByteString) -> ByteString {
    if text.is_empty() { ByteString::new() } else { ByteString::from(String::from(&**text)) }
}

/// The same bytes in an allocation of their own.
pub(crate) fn detach_bytes(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
