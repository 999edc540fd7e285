//! DeleteTopics (API 20): by name, by id (KIP-516), or both (Kafka's ControllerApis.deleteTopics).
//!
//! A client without DESCRIBE on a topic must not learn whether it exists.

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;
use klamm_protocol::messages::delete_topics_request::DeleteTopicsRequest;
use klamm_protocol::messages::delete_topics_response::{
    DeletableTopicResult, DeleteTopicsResponse,
};
use klamm_protocol::messages::remove_topic_record::RemoveTopicRecord;
use klamm_protocol::metadata_record::MetadataRecord;
use klamm_protocol::{ErrorCode, Uuid};

use super::Controller;
use super::outcome::Outcome;

/// Why a topic is not deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeleteTopicError {
    /// `delete.topic.enable=false`.
    #[error("Topic deletion is disabled.")]
    Disabled,
    /// The request has neither name nor id.
    #[error("Neither topic name nor id were specified.")]
    Unnamed,
    /// The request has both name and id of a topic.
    #[error("You may not specify both topic name and topic id.")]
    NameAndId,
    /// The request has the name twice.
    #[error("Duplicate topic name.")]
    DuplicateName,
    /// The request has the id twice.
    #[error("Duplicate topic id.")]
    DuplicateId,
    /// The request has the topic by name and, elsewhere, by id.
    #[error("The provided topic name maps to an ID that was already supplied.")]
    NameOfGivenId,
    /// No topic has this id.
    #[error("{}", ErrorCode::UnknownTopicId.message())]
    UnknownId,
    /// No topic has this name.
    #[error("{}", ErrorCode::UnknownTopicOrPartition.message())]
    UnknownName,
    /// The client is not authorized.
    #[error("{}", ErrorCode::TopicAuthorizationFailed.message())]
    NotAuthorized,
}

impl DeleteTopicError {
    /// The error code for the client.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Disabled => ErrorCode::TopicDeletionDisabled,
            Self::UnknownId => ErrorCode::UnknownTopicId,
            Self::UnknownName => ErrorCode::UnknownTopicOrPartition,
            Self::NotAuthorized => ErrorCode::TopicAuthorizationFailed,
            Self::Unnamed
            | Self::NameAndId
            | Self::DuplicateName
            | Self::DuplicateId
            | Self::NameOfGivenId => ErrorCode::InvalidRequest,
        }
    }
}

/// The client's permissions on topics, by name.
#[derive(Clone, Copy)]
pub struct DeleteTopicsAccess<'a> {
    /// DESCRIBE on the topic.
    pub may_describe: &'a dyn Fn(&str) -> bool,
    /// DELETE on the topic.
    pub may_delete: &'a dyn Fn(&str) -> bool,
}

impl std::fmt::Debug for DeleteTopicsAccess<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeleteTopicsAccess").finish_non_exhaustive()
    }
}

impl DeleteTopicsAccess<'_> {
    /// Everything is allowed: without an authorizer.
    pub const ALL: Self = Self { may_describe: &|_| true, may_delete: &|_| true };
}

/// The topics of a request, each once, and the refusals.
#[derive(Default)]
struct Named {
    names: BTreeSet<ByteString>,
    repeated_names: BTreeSet<ByteString>,
    ids: BTreeSet<Uuid>,
    repeated_ids: BTreeSet<Uuid>,
    results: Vec<DeletableTopicResult>,
}

impl Controller {
    /// Deletes topics. The order of the results has no meaning.
    pub fn on_delete_topics(
        &self,
        request: &DeleteTopicsRequest,
        access: DeleteTopicsAccess<'_>,
    ) -> Outcome<DeleteTopicsResponse> {
        let mut named = Named::read(request);
        if !self.broker_configs.boolean("delete.topic.enable") {
            return Outcome::answer(response(named.all_refused(DeleteTopicError::Disabled)));
        }
        let mut to_delete: BTreeMap<Uuid, ByteString> = BTreeMap::new();
        for id in std::mem::take(&mut named.ids) {
            match self.image().topics.by_id(id) {
                None => named.refuse(None, id, DeleteTopicError::UnknownId),
                Some(topic) if (access.may_delete)(&topic.name) => {
                    to_delete.insert(id, topic.name.clone());
                }
                Some(topic) => {
                    let name = (access.may_describe)(&topic.name).then(|| topic.name.clone());
                    named.refuse(name, id, DeleteTopicError::NotAuthorized);
                }
            }
        }
        for name in std::mem::take(&mut named.names) {
            let topic = self.image().topics.by_name(&name);
            let refused = if !(access.may_describe)(&name) {
                Some((Uuid::ZERO, DeleteTopicError::NotAuthorized))
            } else if let Some(topic) = topic {
                if !(access.may_delete)(&name) {
                    Some((Uuid::ZERO, DeleteTopicError::NotAuthorized))
                } else if named.repeated_ids.contains(&topic.id)
                    || to_delete.insert(topic.id, name.clone()).is_some()
                {
                    to_delete.remove(&topic.id);
                    Some((topic.id, DeleteTopicError::NameOfGivenId))
                } else {
                    None
                }
            } else {
                Some((Uuid::ZERO, DeleteTopicError::UnknownName))
            };
            if let Some((id, error)) = refused {
                named.refuse(Some(name), id, error);
            }
        }
        let mut results = named.results;
        results.extend(to_delete.iter().map(|(id, name)| deleted(*id, name)));
        let remove = |topic_id: &Uuid| {
            MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id: *topic_id })
        };
        Outcome::atomic(to_delete.keys().map(remove).collect(), response(results))
    }
}

impl Named {
    fn read(request: &DeleteTopicsRequest) -> Self {
        let mut named = Self::default();
        request.topic_names.iter().for_each(|name| named.add_name(name));
        for topic in &request.topics {
            match (&topic.name, topic.topic_id) {
                (None, Uuid::ZERO) => named.refuse(None, Uuid::ZERO, DeleteTopicError::Unnamed),
                (None, id) => named.add_id(id),
                (Some(name), Uuid::ZERO) => named.add_name(name),
                (name, id) => named.refuse(name.clone(), id, DeleteTopicError::NameAndId),
            }
        }
        for name in named.repeated_names.clone() {
            named.refuse(Some(name), Uuid::ZERO, DeleteTopicError::DuplicateName);
        }
        for id in named.repeated_ids.clone() {
            named.refuse(None, id, DeleteTopicError::DuplicateId);
        }
        named
    }

    fn add_name(&mut self, name: &ByteString) {
        if self.repeated_names.contains(name) || !self.names.insert(name.clone()) {
            self.names.remove(name);
            self.repeated_names.insert(name.clone());
        }
    }

    fn add_id(&mut self, id: Uuid) {
        if self.repeated_ids.contains(&id) || !self.ids.insert(id) {
            self.ids.remove(&id);
            self.repeated_ids.insert(id);
        }
    }

    fn refuse(&mut self, name: Option<ByteString>, topic_id: Uuid, error: DeleteTopicError) {
        self.results.push(DeletableTopicResult {
            name,
            topic_id,
            error_code: error.code().code(),
            error_message: Some(error.to_string().into()),
        });
    }

    fn all_refused(mut self, error: DeleteTopicError) -> Vec<DeletableTopicResult> {
        self.results.clear();
        let names = self.names.iter().chain(&self.repeated_names).cloned();
        let names: Vec<_> = names.map(|name| (Some(name), Uuid::ZERO)).collect();
        let ids: Vec<_> = self.ids.iter().chain(&self.repeated_ids).map(|id| (None, *id)).collect();
        for (name, id) in names.into_iter().chain(ids) {
            self.refuse(name, id, error);
        }
        self.results
    }
}

fn deleted(topic_id: Uuid, name: &ByteString) -> DeletableTopicResult {
    DeletableTopicResult {
        name: Some(name.clone()),
        topic_id,
        error_code: ErrorCode::None.code(),
        error_message: None,
    }
}

fn response(responses: Vec<DeletableTopicResult>) -> DeleteTopicsResponse {
    DeleteTopicsResponse { responses, ..Default::default() }
}

#[cfg(test)]
mod tests;
