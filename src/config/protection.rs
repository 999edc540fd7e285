//! Keys that demand security features which this version does not have: ACLs, TLS, SASL, client quotas and similar
//! ones.
//!
//! Invariant: such a key stops the start, and a change of the dynamic configuration that sets one is refused. It is
//! never only a warning: a node that serves all clients although its configuration forbids it is worse than none. Keys
//! that only configure *how* TLS or SASL works demand nothing by themselves, nor does any key with its default.

use klamm_metadata::config_def::synonyms::strip_listener_prefix;
use klamm_metadata::config_def::{ConfigDef, ConfigValue, parse_value};

use super::environment::Variables;
use super::settings::{Origin, Settings};

/// The security feature that a key demands and that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Demand {
    #[error(
        "asks for ACLs, which this version of Klamm does not check yet: everybody could read and change everything"
    )]
    Authorization,
    #[error(
        "asks for TLS, which this version of Klamm does not speak yet: every connection would be in clear text"
    )]
    Encryption,
    #[error(
        "asks for SASL, which this version of Klamm does not speak yet: nobody would have to say who they are"
    )]
    Authentication,
    #[error(
        "says who clients are, which this version of Klamm does not find out yet: everybody would be User:ANONYMOUS"
    )]
    Identity,
    #[error(
        "asks for client quotas, which this version of Klamm does not enforce yet: no client would be slowed down"
    )]
    Quota,
    #[error(
        "limits the connections of one listener, and this version of Klamm limits only those of all listeners together: the listener would take every connection"
    )]
    ListenerLimit,
    #[error(
        "names a Java class that refuses requests, and Klamm has no JVM: no request would be refused"
    )]
    Policy,
}

use Demand::{Authentication, Authorization, Encryption, Identity, ListenerLimit, Policy, Quota};

/// Keys that demand a security feature unless they are empty or have their default, with or without a listener prefix.
const DEMANDING: &[(&str, Demand)] = &[
    ("authorizer.class.name", Authorization),
    ("super.users", Authorization),
    ("allow.everyone.if.no.acl.found", Authorization),
    ("security.inter.broker.protocol", Encryption),
    ("security.providers", Encryption),
    ("ssl.cipher.suites", Encryption),
    ("ssl.client.auth", Encryption),
    ("ssl.enabled.protocols", Encryption),
    ("ssl.engine.factory.class", Encryption),
    ("ssl.key.password", Encryption),
    ("ssl.keystore.certificate.chain", Encryption),
    ("ssl.keystore.key", Encryption),
    ("ssl.keystore.location", Encryption),
    ("ssl.keystore.password", Encryption),
    ("ssl.protocol", Encryption),
    ("ssl.provider", Encryption),
    ("ssl.truststore.certificates", Encryption),
    ("ssl.truststore.location", Encryption),
    ("ssl.truststore.password", Encryption),
    ("connections.max.reauth.ms", Authentication),
    ("delegation.token.secret.key", Authentication),
    ("sasl.client.callback.handler.class", Authentication),
    ("sasl.enabled.mechanisms", Authentication),
    ("sasl.jaas.config", Authentication),
    ("sasl.kerberos.service.name", Authentication),
    ("sasl.login.callback.handler.class", Authentication),
    ("sasl.login.class", Authentication),
    ("sasl.mechanism.controller.protocol", Authentication),
    ("sasl.mechanism.inter.broker.protocol", Authentication),
    ("sasl.oauthbearer.assertion.file", Authentication),
    ("sasl.oauthbearer.assertion.private.key.file", Authentication),
    ("sasl.oauthbearer.assertion.private.key.passphrase", Authentication),
    ("sasl.oauthbearer.assertion.template.file", Authentication),
    ("sasl.oauthbearer.client.credentials.client.id", Authentication),
    ("sasl.oauthbearer.client.credentials.client.secret", Authentication),
    ("sasl.oauthbearer.expected.audience", Authentication),
    ("sasl.oauthbearer.expected.issuer", Authentication),
    ("sasl.oauthbearer.jwks.endpoint.url", Authentication),
    ("sasl.oauthbearer.jwt.retriever.class", Authentication),
    ("sasl.oauthbearer.jwt.validator.class", Authentication),
    ("sasl.oauthbearer.scope", Authentication),
    ("sasl.oauthbearer.token.endpoint.url", Authentication),
    ("sasl.server.callback.handler.class", Authentication),
    ("principal.builder.class", Identity),
    ("sasl.kerberos.principal.to.local.rules", Identity),
    ("ssl.principal.mapping.rules", Identity),
    ("client.quota.callback.class", Quota),
    ("controller.quota.window.num", Quota),
    ("controller.quota.window.size.seconds", Quota),
    ("quota.window.num", Quota),
    ("quota.window.size.seconds", Quota),
    // Keys of Kafka until 3.0. A configuration that still has them expects client quotas.
    ("quota.consumer.default", Quota),
    ("quota.producer.default", Quota),
    ("alter.config.policy.class.name", Policy),
    ("create.topic.policy.class.name", Policy),
];

/// Variables from which images create keystores and users (`KAFKA_SSL_KEYSTORE_FILENAME`, `KAFKA_CLIENT_USERS`):
/// Apache's and Confluent's, then Bitnami's.
const DEMANDING_IN_IMAGES: &[(&str, Demand)] = &[
    ("ssl.key.credentials", Encryption),
    ("ssl.keystore.credentials", Encryption),
    ("ssl.keystore.filename", Encryption),
    ("ssl.truststore.credentials", Encryption),
    ("ssl.truststore.filename", Encryption),
    ("certificate.password", Encryption),
    ("tls.client.auth", Encryption),
    ("client.passwords", Authentication),
    ("client.users", Authentication),
    ("controller.password", Authentication),
    ("controller.user", Authentication),
    ("inter.broker.password", Authentication),
    ("inter.broker.user", Authentication),
];

/// Limits that Kafka also has per listener.
const LISTENER_LIMITS: &[&str] = &["max.connections", "max.connection.creation.rate"];

/// A key that demands a missing security feature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: '{key}' {demand}; {}", remedy(.origin, .key, *.demand))]
pub struct Unprotected {
    pub key: String,
    pub origin: Origin,
    pub demand: Demand,
}

fn remedy(origin: &Origin, key: &str, demand: Demand) -> String {
    let without = match origin {
        Origin::File { .. } => "take the line out",
        Origin::Environment { .. } if key == LOGIN_CONFIG => "take it out of the variable",
        Origin::Environment { .. } => "unset the variable",
        Origin::Flag | Origin::Klamm(_) => "leave the flag out",
    };
    match (demand, strip_listener_prefix(key)) {
        (ListenerLimit, Some(base)) => format!("set '{base}' for all of them, or {without}"),
        (Policy, _) => format!("{without} to run without it"),
        _ => format!("{without} to run without it, or leave this node to Apache Kafka until then"),
    }
}

/// The JVM's system property for the file with SASL users, the alternative to `sasl.jaas.config`.
const LOGIN_CONFIG: &str = "java.security.auth.login.config";

/// Variables with JVM options: Kafka's start script passes the first ones to the JVM, which reads the last ones itself.
const OPTIONS_OF_THE_JVM: &[&str] = &[
    "KAFKA_OPTS",
    "KAFKA_HEAP_OPTS",
    "KAFKA_JVM_PERFORMANCE_OPTS",
    "KAFKA_GC_LOG_OPTS",
    "KAFKA_JMX_OPTS",
    "KAFKA_LOG4J_OPTS",
    "KAFKA_LOG4J_CMD_OPTS",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "_JAVA_OPTIONS",
];

/// JVM options that demand a missing security feature.
pub(super) fn unprotected_by_jvm(variables: &Variables) -> Vec<Unprotected> {
    let option = format!("-D{LOGIN_CONFIG}=");
    let asks = |variable: &&&str| {
        variables.get(variable).is_some_and(|value| value.to_string_lossy().contains(&option))
    };
    let asking = OPTIONS_OF_THE_JVM.iter().filter(asks);
    let unprotected = asking.map(|variable| Unprotected {
        key: LOGIN_CONFIG.to_owned(),
        origin: Origin::Environment { variable: (*variable).to_owned() },
        demand: Authentication,
    });
    unprotected.collect()
}

/// All settings that demand a missing security feature.
pub fn unprotected(settings: &Settings) -> Vec<Unprotected> {
    let demands = settings.iter().filter_map(|(key, setting)| {
        let demand = demand(key, &setting.value)?;
        Some(Unprotected { key: key.to_owned(), origin: setting.origin.clone(), demand })
    });
    demands.collect()
}

/// The missing security feature that a key with this value demands, if any.
pub fn demand(key: &str, value: &str) -> Option<Demand> {
    let value = value.trim();
    if value.is_empty() {
        return None;
    }
    let (base, demand) = demanding(key)?;
    let is_harmless = match base {
        "allow.everyone.if.no.acl.found" => value.eq_ignore_ascii_case("true"),
        _ => is_default(base, value),
    };
    (!is_harmless).then_some(demand)
}

/// The key without the prefixes of listener and mechanism, and its demand.
fn demanding(key: &str) -> Option<(&str, Demand)> {
    let find = |base| {
        let mut table = DEMANDING.iter().chain(DEMANDING_IN_IMAGES);
        table.find(|(name, _)| *name == base).map(|(_, demand)| (base, *demand))
    };
    let Some(of_listener) = strip_listener_prefix(key) else { return find(key) };
    if LISTENER_LIMITS.contains(&of_listener) {
        return Some((of_listener, ListenerLimit));
    }
    let of_mechanism = of_listener.split_once('.').map(|(_mechanism, base)| base);
    find(of_listener).or_else(|| find(of_mechanism?))
}

/// Whether a value equals the key's default. An invalid value does not.
pub(super) fn is_default(base: &str, value: &str) -> bool {
    let Some(key) = ConfigDef::broker().get(base) else { return false };
    match (parse_value(key, value), key.default_value()) {
        (Ok(ConfigValue::List(mut entries)), Some(ConfigValue::List(mut default))) => {
            entries.sort();
            default.sort();
            entries == default
        }
        (Ok(value), Some(default)) => value == default,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
