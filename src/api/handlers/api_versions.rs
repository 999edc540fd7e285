//! ApiVersions (key 18): the supported versions of APIs, and the features of the cluster (KIP-35, KIP-584).

use klamm_protocol::messages::api_versions_request::ApiVersionsRequest;
use klamm_protocol::messages::api_versions_response::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use klamm_protocol::{ApiMessage, ErrorCode};

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::api::request::RequestError;
use crate::api::table::{Row, TABLE, table};
use crate::cluster::features::{self, KRAFT_VERSION};
use crate::net::response::Response;

/// The first version with the client's software name and version.
const FIRST_WITH_SOFTWARE: i16 = 3;
/// The first version that may list features whose minimum level is 0 (KIP-1022).
const FIRST_WITH_LEVEL_ZERO: i16 = 4;

message_replies!(ApiVersionsResponse);

pub(crate) fn handle(context: &RequestContext, body: ApiVersionsRequest) -> ApiVersionsResponse {
    if context.version() >= FIRST_WITH_SOFTWARE
        && !(is_software(&body.client_software_name) && is_software(&body.client_software_version))
    {
        let error_code = ErrorCode::InvalidRequest.code();
        return ApiVersionsResponse { error_code, ..Default::default() };
    }
    if context.version() >= FIRST_WITH_SOFTWARE {
        let (name, version) = (&body.client_software_name, &body.client_software_version);
        context.connection.software.get_or_init(|| format!("{name} {version}"));
    }
    let image = context.services.metadata_cache.image();
    let supported = features::SUPPORTED
        .iter()
        .filter(|feature| feature.min > 0 || context.version() >= FIRST_WITH_LEVEL_ZERO)
        .map(|feature| SupportedFeatureKey {
            name: feature.name.into(),
            min_version: feature.min,
            max_version: feature.max,
        });
    let quorum = (image.kraft_version > 0).then_some((KRAFT_VERSION, image.kraft_version));
    let finalized =
        image.features.finalized().chain(quorum).map(|(name, level)| FinalizedFeatureKey {
            name: name.into(),
            max_version_level: level,
            min_version_level: level,
        });
    ApiVersionsResponse {
        api_keys: table(context.kind()).iter().map(advertised).collect(),
        supported_features: supported.collect(),
        finalized_features_epoch: image.end_offset - 1,
        finalized_features: finalized.collect(),
        ..Default::default()
    }
}

/// The answer to a version that is not served, in version 0: it lists the supported versions.
pub(crate) fn unsupported(context: &RequestContext) -> Result<Response, RequestError> {
    let response = ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: TABLE
            .iter()
            .filter(|row| row.schema.key == ApiVersionsRequest::API_KEY)
            .map(advertised)
            .collect(),
        ..Default::default()
    };
    context.head.respond_in(&response, 0)
}

fn advertised(row: &Row) -> ApiVersion {
    ApiVersion {
        api_key: row.schema.key,
        min_version: row.advertised_from,
        max_version: *row.served.end(),
    }
}

/// Letters, digits, dots and dashes, beginning and ending with a letter or digit (KIP-511).
fn is_software(name: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'.';
    let bytes = name.as_bytes();
    bytes.iter().copied().all(inner)
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_are_those_that_kafka_takes() {
        for name in ["a", "librdkafka", "apache-kafka-java", "4.3.1", "a.b-c"] {
            assert!(is_software(name), "{name}");
        }
        for name in ["", " ", "a b", "a/b", "-a", "a.", "é"] {
            assert!(!is_software(name), "{name}");
        }
    }
}
