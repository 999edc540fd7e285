//! Principals, and their form between brokers (Kafka's `KafkaPrincipal` and `DefaultKafkaPrincipalBuilder`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use klamm_protocol::decode::Decoder;
use klamm_protocol::messages::default_principal_data::DefaultPrincipalData;
use klamm_protocol::{EncodeError, Message};

/// An authenticated user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    /// `User` for a principal of Kafka's default principal builder.
    pub(crate) type_: ByteString,
    pub(crate) name: ByteString,
    /// It was authenticated by a delegation token.
    pub(crate) token_authenticated: bool,
}

/// The bytes are not an encoded principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a principal in an unknown form")]
pub(crate) struct UnknownForm;

impl Principal {
    /// The principal of an unauthenticated client (`KafkaPrincipal.ANONYMOUS`).
    pub(crate) fn anonymous() -> Self {
        Self { type_: "User".into(), name: "ANONYMOUS".into(), token_authenticated: false }
    }

    /// Encodes it as in an Envelope: a version, then the message.
    pub(crate) fn to_bytes(&self) -> Result<Bytes, EncodeError> {
        let data = DefaultPrincipalData {
            type_: self.type_.clone(),
            name: self.name.clone(),
            token_authenticated: self.token_authenticated,
        };
        let mut bytes = BytesMut::new();
        bytes.put_i16(*DefaultPrincipalData::VERSIONS.start());
        data.encode(&mut bytes, *DefaultPrincipalData::VERSIONS.start())?;
        Ok(bytes.freeze())
    }

    /// Decodes the form of [`Self::to_bytes`] and of an Apache Kafka broker.
    pub(crate) fn from_bytes(bytes: Bytes) -> Result<Self, UnknownForm> {
        let mut decoder = Decoder::new(bytes);
        let version = decoder.i16().map_err(|_| UnknownForm)?;
        if !DefaultPrincipalData::VERSIONS.contains(&version) {
            return Err(UnknownForm);
        }
        let data = DefaultPrincipalData::decode(&mut decoder, version).map_err(|_| UnknownForm)?;
        let DefaultPrincipalData { type_, name, token_authenticated } = data;
        Ok(Self { type_, name, token_authenticated })
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.type_, self.name)
    }
}

/// The principal and the host of a request's client. An Envelope carries both to the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Requester {
    pub(crate) principal: Arc<Principal>,
    pub(crate) host: IpAddr,
}

impl Requester {
    /// The requester of this node's own requests.
    pub(crate) fn this_node() -> Self {
        Self { principal: Arc::new(Principal::anonymous()), host: Ipv4Addr::LOCALHOST.into() }
    }
}

impl fmt::Display for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.principal, self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_a_version_and_a_message() {
        let bytes = Principal::anonymous().to_bytes().unwrap();
        assert_eq!(&bytes[..], b"\0\0\x05User\x0aANONYMOUS\0\0");
        assert_eq!(Principal::from_bytes(bytes), Ok(Principal::anonymous()));
        assert_eq!(Principal::anonymous().to_string(), "User:ANONYMOUS");
    }

    #[test]
    fn principals_in_unknown_forms_are_refused() {
        let whole = Principal::anonymous().to_bytes().unwrap();
        for bytes in
            [Bytes::new(), whole.slice(..1), whole.slice(..5), Bytes::from_static(b"\0\x09")]
        {
            assert_eq!(Principal::from_bytes(bytes), Err(UnknownForm));
        }
    }
}
