//! The result of a decision: records to append, and the response to send when they are committed.

use klamm_protocol::metadata_record::MetadataRecord;

/// The result of a decision (Kafka's ControllerResult).
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a decision has no effect until its records are appended and replayed"]
pub struct Outcome<R> {
    /// Records for the metadata log, in this order. Write each one at
    /// [`crate::metadata_version::MetadataVersion::record_version`].
    pub records: Vec<MetadataRecord>,
    /// Whether all records must become visible together: then the caller writes them in one batch, else possibly in
    /// several.
    pub atomic: bool,
    /// The response. It must not be sent before the records are committed.
    pub response: R,
}

impl<R> Outcome<R> {
    /// Records that must become visible together.
    pub fn atomic(records: Vec<MetadataRecord>, response: R) -> Self {
        Self { records, atomic: true, response }
    }

    /// Records that may become visible one after the other.
    pub fn spread(records: Vec<MetadataRecord>, response: R) -> Self {
        Self { records, atomic: false, response }
    }

    /// A response without records.
    pub fn answer(response: R) -> Self {
        Self::spread(Vec::new(), response)
    }

    /// The same records with another response, made of this one.
    pub fn map<T>(self, response: impl FnOnce(R) -> T) -> Outcome<T> {
        let Self { records, atomic, response: before } = self;
        Outcome { records, atomic, response: response(before) }
    }

    /// The same response without records, for requests that only validate.
    pub fn without_records(self) -> Self {
        Self { records: Vec::new(), ..self }
    }
}
