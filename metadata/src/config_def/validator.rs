//! The validators of Kafka's `ConfigDef`, parsed from the table of facts.

use super::duration::is_non_negative_duration;
use super::host_port::{parse_bootstrap_servers, parse_voters};
use super::java_text::{print_list, trim};
use super::value::{ConfigValue, ConfigValueError, InvalidReason};

/// A bound of a numeric range: its number, and its text in error messages.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    pub text: &'static str,
    pub number: f64,
}

/// The condition of a value besides its type.
#[derive(Debug, Clone, PartialEq)]
pub enum Validator {
    /// Any value of the type.
    Any,
    AtLeast(Bound),
    Between(Bound, Bound),
    /// In the range or equal to the last one (the gzip level, where -1 is zlib's default).
    BetweenOr(Bound, Bound, Bound),
    OneOf(Vec<&'static str>),
    OneOfIgnoringCase(Vec<&'static str>),
    /// A list without duplicates and empty entries; `strings` empty means any entry.
    List {
        may_be_empty: bool,
        strings: Vec<&'static str>,
    },
    NonEmpty,
    /// Any text, but not null (`NonNullValidator`).
    NonNull,
    /// `*` or `partition:broker` pairs (`ThrottledReplicaListValidator`).
    ThrottledReplicas,
    QuorumVoters,
    QuorumBootstrapServers,
    /// `earliest`, `latest` or `by_duration:` and an ISO 8601 duration (KIP-1106).
    ShareAutoOffsetReset,
}

impl Validator {
    /// Parses the last column of the table. Panics on text that `tools/config-facts` never prints.
    pub(super) fn from_fact(fact: &'static str) -> Self {
        let (kind, rest) = fact.split_once(':').unwrap_or((fact, ""));
        let strings = || rest.split(',').collect::<Vec<_>>();
        let bound = |position: usize| Bound::new(strings()[position]);
        match kind {
            "-" => Self::Any,
            "at-least" => Self::AtLeast(bound(0)),
            "between" => Self::Between(bound(0), bound(1)),
            "between-or" => Self::BetweenOr(bound(0), bound(1), bound(2)),
            "in" => Self::OneOf(strings()),
            "in-ignoring-case" => Self::OneOfIgnoringCase(strings()),
            "list" => Self::list_from_fact(rest),
            "non-empty" => Self::NonEmpty,
            "non-null" => Self::NonNull,
            "code" => Self::from_class(rest),
            _ => panic!("unknown validator {fact}"),
        }
    }

    fn list_from_fact(fact: &'static str) -> Self {
        // A configured value is never null, only a default can be, so that flag is dropped.
        let (flags, strings) = fact.split_once(':').unwrap_or((fact, ""));
        let strings = if strings.is_empty() { Vec::new() } else { strings.split(',').collect() };
        Self::List { may_be_empty: flags.starts_with("empty"), strings }
    }

    fn from_class(class: &str) -> Self {
        match class {
            "ThrottledReplicaListValidator" => Self::ThrottledReplicas,
            "QuorumConfig.ControllerQuorumVotersValidator" => Self::QuorumVoters,
            "QuorumConfig.ControllerQuorumBootstrapServersValidator" => {
                Self::QuorumBootstrapServers
            }
            "ShareGroupAutoOffsetResetStrategy" => Self::ShareAutoOffsetReset,
            _ => panic!("unknown validator {class}"),
        }
    }

    /// Refuses a value as Kafka's validator does, with the same text.
    pub fn ensure_valid(&self, name: &str, value: &ConfigValue) -> Result<(), ConfigValueError> {
        match self {
            Self::Any | Self::NonNull => Ok(()),
            Self::AtLeast(_) | Self::Between(..) | Self::BetweenOr(..) => {
                self.check_number(number(value)).map_err(|reason| invalid(name, value, reason))
            }
            Self::OneOf(_) | Self::OneOfIgnoringCase(_) | Self::NonEmpty => {
                self.check_string(string(value)).map_err(|reason| invalid(name, value, reason))
            }
            Self::ShareAutoOffsetReset => check_share_auto_offset_reset(name, value),
            Self::List { may_be_empty, strings } => {
                check_list(name, list(value), *may_be_empty, strings)
            }
            Self::ThrottledReplicas => check_throttled_replicas(name, value),
            Self::QuorumVoters => parse_voters(name, list(value)).map(drop),
            Self::QuorumBootstrapServers => parse_bootstrap_servers(name, list(value)).map(drop),
        }
    }

    fn check_number(&self, number: f64) -> Result<(), InvalidReason> {
        match self {
            Self::AtLeast(min) | Self::Between(min, _) if number < min.number => {
                Err(InvalidReason::TooSmall(min.text))
            }
            Self::Between(_, max) if number > max.number => Err(InvalidReason::TooLarge(max.text)),
            Self::BetweenOr(min, max, or)
                if number > max.number || (number < min.number && number != or.number) =>
            {
                Err(InvalidReason::OutsideRange { min: min.text, max: max.text, or: or.text })
            }
            _ => Ok(()),
        }
    }

    fn check_string(&self, string: &str) -> Result<(), InvalidReason> {
        match self {
            Self::OneOf(strings) if !strings.contains(&string) => {
                Err(InvalidReason::NotOneOf(strings.join(", ")))
            }
            Self::OneOfIgnoringCase(strings)
                if !strings.iter().any(|valid| valid.eq_ignore_ascii_case(string)) =>
            {
                Err(InvalidReason::NotOneOfIgnoringCase(strings.join(", ")))
            }
            Self::NonEmpty if string.is_empty() => Err(InvalidReason::Empty),
            _ => Ok(()),
        }
    }
}

impl Bound {
    fn new(text: &'static str) -> Self {
        Self { text, number: text.parse().expect("a bound in the table is a number") }
    }
}

pub(super) fn invalid(name: &str, value: &ConfigValue, reason: InvalidReason) -> ConfigValueError {
    let value = match value {
        ConfigValue::List(entries) => print_list(entries),
        value => value.to_string(),
    };
    ConfigValueError::Invalid { name: name.to_owned(), value, reason }
}

fn check_list(
    name: &str,
    entries: &[String],
    may_be_empty: bool,
    strings: &[&'static str],
) -> Result<(), ConfigValueError> {
    if entries.is_empty() && !may_be_empty {
        let valid = match strings {
            [] => "any non-empty value".to_owned(),
            strings => format!("[{}]", strings.join(", ")),
        };
        return Err(ConfigValueError::EmptyList { name: name.to_owned(), valid });
    }
    for entry in entries {
        if entry.is_empty() {
            return Err(ConfigValueError::EmptyListEntry { name: name.to_owned() });
        }
        if !strings.is_empty() && !strings.contains(&entry.as_str()) {
            let reason = InvalidReason::NotOneOf(strings.join(", "));
            return Err(invalid(name, &ConfigValue::String(entry.clone()), reason));
        }
    }
    Ok(())
}

fn check_throttled_replicas(name: &str, value: &ConfigValue) -> Result<(), ConfigValueError> {
    let entries: Vec<&str> = list(value).iter().map(|entry| trim(entry)).collect();
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_pair = |entry: &&str| {
        entry.is_empty()
            || entry
                .split_once(':')
                .is_some_and(|(partition, broker)| is_digits(partition) && is_digits(broker))
    };
    if entries.iter().all(is_pair) || entries.concat() == "*" {
        return Ok(());
    }
    Err(invalid(name, value, InvalidReason::ThrottledReplicas(name.to_owned())))
}

fn check_share_auto_offset_reset(name: &str, value: &ConfigValue) -> Result<(), ConfigValueError> {
    let text = string(value);
    let is_duration = text.strip_prefix("by_duration:").is_some_and(is_non_negative_duration);
    if is_duration || matches!(text, "earliest" | "latest") {
        return Ok(());
    }
    let reason =
        InvalidReason::ShareAutoOffsetReset { name: name.to_owned(), value: text.to_owned() };
    Err(invalid(name, value, reason))
}

fn number(value: &ConfigValue) -> f64 {
    match value {
        ConfigValue::Int(number) => f64::from(*number),
        ConfigValue::Short(number) => f64::from(*number),
        // Kafka compares as doubles too; the bounds are far below the loss of precision.
        ConfigValue::Long(number) => *number as f64,
        ConfigValue::Double(number) => *number,
        other => panic!("a range is only put on numbers, not on {other:?}"),
    }
}

fn string(value: &ConfigValue) -> &str {
    match value {
        ConfigValue::String(text) => text,
        other => panic!("this validator is only put on strings, not on {other:?}"),
    }
}

fn list(value: &ConfigValue) -> &[String] {
    match value {
        ConfigValue::List(entries) => entries,
        other => panic!("this validator is only put on lists, not on {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use crate::config_def::{ConfigDef, ConfigScope, parse_value};

    fn refusal(scope: ConfigScope, name: &str, text: &str) -> String {
        match parse_value(ConfigDef::of(scope).known(name), text) {
            Ok(value) => panic!("{name}={text} is accepted as {value:?}"),
            Err(error) => error.to_string(),
        }
    }

    fn accepts(scope: ConfigScope, name: &str, text: &str) -> bool {
        parse_value(ConfigDef::of(scope).known(name), text).is_ok()
    }

    #[test]
    fn numbers_outside_their_range_are_refused_in_kafkas_words() {
        let topic = |name, text| refusal(ConfigScope::Topic, name, text);
        assert_eq!(
            topic("min.insync.replicas", "0"),
            "Invalid value 0 for configuration min.insync.replicas: Value must be at least 1"
        );
        assert_eq!(
            topic("min.cleanable.dirty.ratio", "1.5"),
            "Invalid value 1.5 for configuration min.cleanable.dirty.ratio: Value must be no more than 1"
        );
        assert_eq!(
            topic("compression.gzip.level", "50"),
            "Invalid value 50 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1"
        );
        assert!(accepts(ConfigScope::Topic, "compression.gzip.level", "-1"));
        assert!(!accepts(ConfigScope::Topic, "compression.gzip.level", "0"));
    }

    #[test]
    fn strings_outside_their_set_are_refused_in_kafkas_words() {
        assert_eq!(
            refusal(ConfigScope::Topic, "message.timestamp.type", "Foo"),
            "Invalid value Foo for configuration message.timestamp.type: String must be one of: CreateTime, LogAppendTime"
        );
        assert!(!accepts(ConfigScope::Topic, "message.timestamp.type", "createtime"));
        assert!(accepts(ConfigScope::Broker, "group.consumer.migration.policy", "Upgrade"));
        assert!(!accepts(ConfigScope::Broker, "group.consumer.migration.policy", "never"));
    }

    #[test]
    fn lists_name_the_entry_that_is_wrong() {
        assert_eq!(
            refusal(ConfigScope::Topic, "cleanup.policy", "delete,foo"),
            "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete"
        );
        assert_eq!(
            refusal(ConfigScope::Topic, "cleanup.policy", "delete,"),
            "Configuration 'cleanup.policy' values must not be empty."
        );
        assert_eq!(
            refusal(ConfigScope::Broker, "process.roles", ""),
            "Configuration 'process.roles' must not be empty. Valid values include: [broker, controller]"
        );
        assert_eq!(
            refusal(ConfigScope::Broker, "log.dirs", ""),
            "Configuration 'log.dirs' must not be empty. Valid values include: any non-empty value"
        );
    }

    #[test]
    fn throttled_replicas_are_pairs_or_a_star() {
        let name = "leader.replication.throttled.replicas";
        for text in ["*", "", "0:1", "0:1, 2:3"] {
            assert!(accepts(ConfigScope::Topic, name, text), "{text}");
        }
        assert_eq!(
            refusal(ConfigScope::Topic, name, "x"),
            "Invalid value [x] for configuration leader.replication.throttled.replicas: leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."
        );
        for text in ["0:", ":1", "0", "0:1:2", "**"] {
            assert!(!accepts(ConfigScope::Topic, name, text), "{text}");
        }
    }

    #[test]
    fn a_share_group_starts_at_an_end_or_a_duration_ago() {
        let name = "share.auto.offset.reset";
        for text in ["earliest", "latest", "by_duration:PT1H", "by_duration:P1DT2H3M4.5S"] {
            assert!(accepts(ConfigScope::Group, name, text), "{text}");
        }
        for text in ["none", "by_duration", "by_duration:", "by_duration:-PT1H", "Earliest"] {
            assert!(!accepts(ConfigScope::Group, name, text), "{text}");
        }
    }
}
