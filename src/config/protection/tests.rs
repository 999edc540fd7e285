//! Every key that demands a security feature, one by one.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::config::{BrokerConfig, ConfigError, Environment, Loaded, Sources, properties};

/// Each refused key, with a demanding value and its demand.
const REFUSED: &[(&str, &str, Demand)] = &[
    (
        "authorizer.class.name",
        "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        Authorization,
    ),
    ("authorizer.class.name", "com.example.MyAuthorizer", Authorization),
    ("super.users", "User:admin", Authorization),
    ("allow.everyone.if.no.acl.found", "false", Authorization),
    ("allow.everyone.if.no.acl.found", "no", Authorization),
    ("security.inter.broker.protocol", "SASL_SSL", Encryption),
    ("security.providers", "com.example.Provider", Encryption),
    ("ssl.cipher.suites", "TLS_AES_256_GCM_SHA384", Encryption),
    ("ssl.client.auth", "required", Encryption),
    ("ssl.client.auth", "requested", Encryption),
    ("ssl.enabled.protocols", "TLSv1.3", Encryption),
    ("ssl.engine.factory.class", "com.example.Factory", Encryption),
    ("ssl.key.password", "x", Encryption),
    ("ssl.keystore.certificate.chain", "x", Encryption),
    ("ssl.keystore.key", "x", Encryption),
    ("ssl.keystore.location", "/keystore", Encryption),
    ("ssl.keystore.password", "x", Encryption),
    ("ssl.protocol", "TLSv1.2", Encryption),
    ("ssl.provider", "BCFIPS", Encryption),
    ("ssl.truststore.certificates", "x", Encryption),
    ("ssl.truststore.location", "/truststore", Encryption),
    ("ssl.truststore.password", "x", Encryption),
    ("connections.max.reauth.ms", "3600000", Authentication),
    ("delegation.token.secret.key", "x", Authentication),
    ("sasl.client.callback.handler.class", "a.B", Authentication),
    ("sasl.enabled.mechanisms", "SCRAM-SHA-512", Authentication),
    ("sasl.enabled.mechanisms", "GSSAPI,PLAIN", Authentication),
    ("sasl.jaas.config", "x", Authentication),
    ("sasl.kerberos.service.name", "kafka", Authentication),
    ("sasl.login.callback.handler.class", "a.B", Authentication),
    ("sasl.login.class", "a.B", Authentication),
    ("sasl.mechanism.controller.protocol", "PLAIN", Authentication),
    ("sasl.mechanism.inter.broker.protocol", "PLAIN", Authentication),
    ("sasl.oauthbearer.assertion.file", "/f", Authentication),
    ("sasl.oauthbearer.assertion.private.key.file", "/f", Authentication),
    ("sasl.oauthbearer.assertion.private.key.passphrase", "x", Authentication),
    ("sasl.oauthbearer.assertion.template.file", "/f", Authentication),
    ("sasl.oauthbearer.client.credentials.client.id", "x", Authentication),
    ("sasl.oauthbearer.client.credentials.client.secret", "x", Authentication),
    ("sasl.oauthbearer.expected.audience", "x", Authentication),
    ("sasl.oauthbearer.expected.issuer", "x", Authentication),
    ("sasl.oauthbearer.jwks.endpoint.url", "http://localhost", Authentication),
    ("sasl.oauthbearer.jwt.retriever.class", "a.B", Authentication),
    ("sasl.oauthbearer.jwt.validator.class", "a.B", Authentication),
    ("sasl.oauthbearer.scope", "x", Authentication),
    ("sasl.oauthbearer.token.endpoint.url", "http://localhost", Authentication),
    ("sasl.server.callback.handler.class", "a.B", Authentication),
    ("principal.builder.class", "a.B", Identity),
    ("sasl.kerberos.principal.to.local.rules", "RULE:[1:$1]", Identity),
    ("ssl.principal.mapping.rules", "RULE:^CN=(.*?)$/$1/", Identity),
    ("client.quota.callback.class", "a.B", Quota),
    ("controller.quota.window.num", "21", Quota),
    ("controller.quota.window.size.seconds", "2", Quota),
    ("quota.window.num", "21", Quota),
    ("quota.window.size.seconds", "2", Quota),
    ("quota.consumer.default", "1048576", Quota),
    ("quota.producer.default", "1048576", Quota),
    ("alter.config.policy.class.name", "a.B", Policy),
    ("create.topic.policy.class.name", "a.B", Policy),
    ("ssl.key.credentials", "file", Encryption),
    ("ssl.keystore.credentials", "file", Encryption),
    ("ssl.keystore.filename", "file", Encryption),
    ("ssl.truststore.credentials", "file", Encryption),
    ("ssl.truststore.filename", "file", Encryption),
    ("certificate.password", "x", Encryption),
    ("tls.client.auth", "required", Encryption),
    ("client.passwords", "x", Authentication),
    ("client.users", "x", Authentication),
    ("controller.password", "x", Authentication),
    ("controller.user", "x", Authentication),
    ("inter.broker.password", "x", Authentication),
    ("inter.broker.user", "x", Authentication),
    ("listener.name.external.ssl.client.auth", "required", Encryption),
    ("listener.name.external.ssl.keystore.location", "/keystore", Encryption),
    ("listener.name.external.sasl.enabled.mechanisms", "PLAIN", Authentication),
    ("listener.name.external.plain.sasl.jaas.config", "x", Authentication),
    ("listener.name.external.scram-sha-512.sasl.jaas.config", "x", Authentication),
    ("listener.name.external.oauthbearer.sasl.oauthbearer.expected.issuer", "x", Authentication),
    ("listener.name.external.plain.connections.max.reauth.ms", "1", Authentication),
    ("listener.name.external.principal.builder.class", "a.B", Identity),
    ("listener.name.external.max.connections", "10", ListenerLimit),
    ("listener.name.external.max.connection.creation.rate", "10", ListenerLimit),
];

/// Keys of the same families that demand nothing: they configure how, or demand less.
const HARMLESS: &[&str] = &[
    "delegation.token.expiry.check.interval.ms",
    "delegation.token.expiry.time.ms",
    "delegation.token.max.lifetime.ms",
    "early.start.listeners",
    "sasl.kerberos.kinit.cmd",
    "sasl.kerberos.min.time.before.relogin",
    "sasl.kerberos.ticket.renew.jitter",
    "sasl.kerberos.ticket.renew.window.factor",
    "sasl.login.connect.timeout.ms",
    "sasl.login.read.timeout.ms",
    "sasl.login.refresh.buffer.seconds",
    "sasl.login.refresh.min.period.seconds",
    "sasl.login.refresh.window.factor",
    "sasl.login.refresh.window.jitter",
    "sasl.login.retry.backoff.max.ms",
    "sasl.login.retry.backoff.ms",
    "sasl.oauthbearer.assertion.algorithm",
    "sasl.oauthbearer.assertion.claim.aud",
    "sasl.oauthbearer.assertion.claim.exp.seconds",
    "sasl.oauthbearer.assertion.claim.iss",
    "sasl.oauthbearer.assertion.claim.jti.include",
    "sasl.oauthbearer.assertion.claim.nbf.seconds",
    "sasl.oauthbearer.assertion.claim.sub",
    "sasl.oauthbearer.clock.skew.seconds",
    "sasl.oauthbearer.jwks.endpoint.refresh.ms",
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms",
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms",
    "sasl.oauthbearer.scope.claim.name",
    "sasl.oauthbearer.sub.claim.name",
    "sasl.server.max.receive.size",
    "ssl.allow.dn.changes",
    "ssl.allow.san.changes",
    "ssl.endpoint.identification.algorithm",
    "ssl.keymanager.algorithm",
    "ssl.keystore.type",
    "ssl.secure.random.implementation",
    "ssl.trustmanager.algorithm",
    "ssl.truststore.type",
];

#[test]
fn every_key_that_asks_for_protection_stops_the_start() {
    for (key, value, demand) in REFUSED {
        let error = BrokerConfig::from_pairs([(*key, *value)]).unwrap_err();
        let ConfigError::Unprotected { keys, .. } = &error else { panic!("{key}: {error}") };
        assert_eq!(keys.len(), 1, "{key}: {error}");
        assert_eq!((keys[0].key.as_str(), keys[0].demand), (*key, *demand));
        let text = error.to_string();
        assert!(text.starts_with(&format!("--override: '{key}' {demand}; ")), "{text}");
    }
}

#[test]
fn every_key_of_the_table_is_tried() {
    let tried: BTreeSet<&str> = REFUSED.iter().map(|(key, ..)| *key).collect();
    for (key, _) in DEMANDING.iter().chain(DEMANDING_IN_IMAGES) {
        assert!(tried.contains(key), "{key}");
    }
}

/// A new key of a later Kafka must be added to one of the lists.
#[test]
fn every_security_key_of_kafka_is_known_to_ask_for_something_or_for_nothing() {
    let families = ["ssl.", "sasl.", "delegation.", "authorizer.", "principal.", "security."];
    let is_of_security = |key: &str| families.iter().any(|family| key.starts_with(family));
    for key in ConfigDef::broker() {
        if is_of_security(key.name) {
            let refused = DEMANDING.iter().any(|(name, _)| *name == key.name);
            assert!(refused != HARMLESS.contains(&key.name), "{}", key.name);
        }
    }
}

#[test]
fn defaults_and_empty_values_ask_for_nothing() {
    for (key, _) in DEMANDING {
        assert_eq!(demand(key, " "), None, "{key}");
        let default = ConfigDef::broker().get(key).and_then(|key| key.default_value());
        if let Some(default) = default {
            assert_eq!(demand(key, &default.to_string()), None, "{key}");
            assert_eq!(demand(&format!("listener.name.a.{key}"), &default.to_string()), None);
        }
    }
    assert_eq!(demand("ssl.enabled.protocols", "TLSv1.3, TLSv1.2"), None);
    assert_eq!(demand("allow.everyone.if.no.acl.found", "TRUE"), None);
    assert_eq!(demand("listener.name.a.max.connections", "2147483647"), None);
    for key in HARMLESS {
        assert_eq!(demand(key, "1"), None, "{key}");
    }
    let harmless = [("ssl.client.auth", "none"), ("authorizer.class.name", "")];
    assert!(BrokerConfig::from_pairs(harmless).is_ok());
}

#[test]
fn each_source_gets_its_own_remedy() {
    let mut settings = Settings::default();
    let lines = properties::parse(b"\nauthorizer.class.name=a.B").unwrap();
    settings.add_file(Path::new("server.properties"), lines);
    settings.add_environment(&Environment::from_variables([(
        "KAFKA_SSL_CLIENT_AUTH".into(),
        "required".into(),
    )]));
    settings.add_flags(&[("listener.name.a.max.connections".into(), "5".into())]);
    let found: Vec<String> = unprotected(&settings).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "server.properties:2: 'authorizer.class.name' asks for ACLs, which this version of Klamm does not check yet: everybody could read and change everything; take the line out to run without it, or leave this node to Apache Kafka until then",
            "--override: 'listener.name.a.max.connections' limits the connections of one listener, and this version of Klamm limits only those of all listeners together: the listener would take every connection; set 'max.connections' for all of them, or leave the flag out",
            "environment KAFKA_SSL_CLIENT_AUTH: 'ssl.client.auth' asks for TLS, which this version of Klamm does not speak yet: every connection would be in clear text; unset the variable to run without it, or leave this node to Apache Kafka until then",
        ]
    );
}

#[test]
fn keys_and_listeners_are_refused_together_and_no_secret_is_told() {
    let pairs = [
        ("listeners", "SSL://:9092,CONTROLLER://:9093"),
        ("listener.security.protocol.map", "SSL:SSL,CONTROLLER:PLAINTEXT"),
        ("inter.broker.listener.name", "SSL"),
        ("ssl.keystore.password", "hunter2"),
        ("ssl.key.password", "hunter2"),
    ];
    let text = BrokerConfig::from_pairs(pairs).unwrap_err().to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("--override: 'ssl.key.password' asks for TLS"), "{text}");
    assert!(lines[1].starts_with("--override: 'ssl.keystore.password' asks for TLS"), "{text}");
    assert!(lines[2].starts_with("listener SSL asks for SSL"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn what_is_refused_can_still_be_looked_at() {
    let overrides = vec![("super.users".to_owned(), "User:a".to_owned())];
    let sources = Sources { overrides, ..Sources::default() };
    assert!(Loaded::from_sources(&sources).is_err());
    let looked_at = Loaded::to_look_at(&sources).unwrap();
    assert_eq!(looked_at.unprotected.len(), 1);
}

#[test]
fn a_login_configuration_for_the_jvm_asks_for_sasl() {
    let with = |variable: &str, value: &str| {
        let variables = [(variable.into(), value.into())];
        let environment = Environment::from_variables(variables);
        Loaded::from_sources(&Sources { environment, ..Sources::default() })
    };
    for variable in OPTIONS_OF_THE_JVM {
        let options = "-Xmx1g -Djava.security.auth.login.config=/etc/kafka/jaas.conf -Da=b";
        let refused = with(variable, options).unwrap_err().to_string();
        let expected = format!(
            "environment {variable}: 'java.security.auth.login.config' asks for SASL, which this version of Klamm does not \
             speak yet: nobody would have to say who they are; take it out of the variable to run without it, or leave this \
             node to Apache Kafka until then"
        );
        assert_eq!(refused, expected);
        assert!(with(variable, "-Xmx1g -Djava.net.preferIPv4Stack=true").is_ok(), "{variable}");
    }
    assert!(with("OTHER_OPTS", "-Djava.security.auth.login.config=/jaas.conf").is_ok());
}

/// As in Apache Kafka, whose `ConfigDef` is case-sensitive: the other spelling is an unknown key.
#[test]
fn a_key_in_the_wrong_case_is_another_key() {
    let loaded = |key: &str| {
        let overrides = vec![(key.to_owned(), "a.B".to_owned())];
        Loaded::from_sources(&Sources { overrides, ..Sources::default() })
    };
    assert!(loaded("authorizer.class.name").is_err());
    let advice = loaded("Authorizer.Class.Name").unwrap().advice;
    let advice: Vec<String> = advice.iter().map(ToString::to_string).collect();
    assert!(advice.iter().any(|said| said.contains("Authorizer.Class.Name")), "{advice:?}");
}
