//! Log lines: in the shape of Kafka's log4j2 layout, `[%d] %p %m (%c)`, or as JSON.
//!
//! The target of an event is the logger's name; use Kafka's name if there is one. Control characters are escaped, so
//! that a client's input cannot forge log lines. Times are UTC.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

pub(crate) mod loggers;
mod queue;

use self::queue::LogQueue;

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// `[2026-11-21 07:54:12,001] INFO message (logger)`
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Which events are logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevels {
    root: LevelFilter,
    loggers: BTreeMap<String, LevelFilter>,
}

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error(
        "environment {variable}: '{level}' is no log level; use OFF, FATAL, ERROR, WARN, INFO, DEBUG, TRACE or ALL"
    )]
    UnknownLevel { variable: &'static str, level: String },
    #[error("environment {variable}: '{entry}' is not LOGGER=LEVEL")]
    NotAnEntry { variable: &'static str, entry: String },
    #[error("this process has set up logging already")]
    AlreadySet,
    #[error("the thread that writes the log cannot be started: {0}")]
    Thread(std::io::Error),
}

const ROOT_VARIABLE: &str = "KAFKA_LOG4J_ROOT_LOGLEVEL";
const LOGGERS_VARIABLE: &str = "KAFKA_LOG4J_LOGGERS";

impl LogLevels {
    /// Reads `KAFKA_LOG4J_ROOT_LOGLEVEL` (INFO if it is not set) and `KAFKA_LOG4J_LOGGERS`, a list of `logger=LEVEL`.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, LoggingError> {
        let set = |name| variable(name).filter(|text| !text.trim().is_empty());
        let root =
            set(ROOT_VARIABLE).map_or(Ok(LevelFilter::INFO), |text| level(ROOT_VARIABLE, &text))?;
        let entries = set(LOGGERS_VARIABLE).unwrap_or_default();
        let loggers = entries
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(logger_entry)
            .collect::<Result<_, _>>()?;
        Ok(Self { root, loggers })
    }

    fn targets(&self) -> Targets {
        let loggers = self.loggers.iter().map(|(name, level)| (name.clone(), *level));
        Targets::new().with_default(self.root).with_targets(loggers)
    }
}

fn logger_entry(entry: &str) -> Result<(String, LevelFilter), LoggingError> {
    let not_an_entry =
        || LoggingError::NotAnEntry { variable: LOGGERS_VARIABLE, entry: entry.to_owned() };
    let (name, text) = entry.split_once('=').ok_or_else(not_an_entry)?;
    Ok((name.trim().to_owned(), level(LOGGERS_VARIABLE, text)?))
}

fn level(variable: &'static str, text: &str) -> Result<LevelFilter, LoggingError> {
    level_of(&text.trim().to_ascii_uppercase())
        .ok_or_else(|| LoggingError::UnknownLevel { variable, level: text.to_owned() })
}

/// The level with this log4j name.
fn level_of(name: &str) -> Option<LevelFilter> {
    match name {
        "OFF" => Some(LevelFilter::OFF),
        "FATAL" | "ERROR" => Some(LevelFilter::ERROR),
        "WARN" => Some(LevelFilter::WARN),
        "INFO" => Some(LevelFilter::INFO),
        "DEBUG" => Some(LevelFilter::DEBUG),
        "TRACE" | "ALL" => Some(LevelFilter::TRACE),
        _ => None,
    }
}

/// How long the end of the process waits for the log to be written.
const END_LIMIT: Duration = Duration::from_secs(1);

/// The log of a process.
#[derive(Debug)]
pub struct Log(LogQueue);

impl Log {
    /// Call this at the end of the process: waits until the log is written, `END_LIMIT` at most.
    pub fn finish(self) {
        self.0.finish(END_LIMIT);
    }
}

/// Sends the events of this process to its standard output.
pub fn init(format: LogFormat, levels: &LogLevels) -> Result<Log, LoggingError> {
    let queue = LogQueue::default();
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Lines { format })
        .log_internal_errors(false)
        .with_writer(queue.clone());
    let (filter, handle) = reload::Layer::new(levels.targets());
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|_| LoggingError::AlreadySet)?;
    loggers::install(levels.clone(), handle);
    queue
        .start(std::io::stdout(), move |dropped| of_dropped(format, dropped))
        .map_err(LoggingError::Thread)?;
    Ok(Log(queue))
}

/// The line that reports dropped lines.
fn of_dropped(format: LogFormat, dropped: u64) -> String {
    let message = format!(
        "{dropped} lines of the log are missing here: standard output was not read in time"
    );
    let fields = Fields { message, others: Vec::new() };
    let line = Line { now_ms: now_ms(), level: Level::WARN, logger: module_path!(), fields };
    let mut text = String::new();
    line.write(format, &mut text).expect("a string takes any text");
    text
}

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis())
}

/// Writes one event as one line.
struct Lines {
    format: LogFormat,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let (level, logger) = (*metadata.level(), metadata.target());
        Line { now_ms: now_ms(), level, logger, fields }.write(self.format, &mut writer)
    }
}

/// Fields that identify the subject of a line. The message names them too, so only the JSON form, which is filtered by
/// them, repeats them.
const SUBJECTS: [&str; 5] = ["topic", "partition", "broker", "node", "epoch"];

/// The fields of an event as text, and its message.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.others.push((field.name(), text));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.others.push((field.name(), value.to_owned()));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.others.push((field.name(), value.to_string()));
    }
}

struct Line<'a> {
    now_ms: u128,
    level: Level,
    logger: &'a str,
    fields: Fields,
}

impl Line<'_> {
    fn write(&self, format: LogFormat, out: &mut dyn fmt::Write) -> fmt::Result {
        match format {
            LogFormat::Text => self.write_text(out),
            LogFormat::Json => self.write_json(out),
        }
    }

    fn write_text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let time = Time::from_unix_ms(self.now_ms);
        write!(
            out,
            "[{:04}-{:02}-{:02} {:02}:{:02}:{:02},{:03}] {} ",
            time.year,
            time.month,
            time.day,
            time.hour,
            time.minute,
            time.second,
            time.millisecond,
            self.level
        )?;
        write_escaped(out, &self.fields.message)?;
        let others = self.fields.others.iter();
        for (name, value) in others.filter(|(name, _)| !SUBJECTS.contains(name)) {
            write!(out, " {name}=")?;
            write_escaped(out, value)?;
        }
        writeln!(out, " ({})", self.logger)
    }

    fn write_json(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let time = Time::from_unix_ms(self.now_ms);
        write!(
            out,
            "{{\"timestamp\":\"{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z\",\"level\":\"{}\",\"logger\":",
            time.year,
            time.month,
            time.day,
            time.hour,
            time.minute,
            time.second,
            time.millisecond,
            self.level
        )?;
        write_json_string(out, self.logger)?;
        out.write_str(",\"message\":")?;
        write_json_string(out, &self.fields.message)?;
        for (name, value) in &self.fields.others {
            out.write_char(',')?;
            write_json_string(out, name)?;
            out.write_char(':')?;
            write_json_string(out, value)?;
        }
        out.write_str("}\n")
    }
}

fn write_escaped(out: &mut dyn fmt::Write, text: &str) -> fmt::Result {
    for c in text.chars() {
        match c {
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            c if c.is_control() => write!(out, "\\u{:04x}", u32::from(c))?,
            c => out.write_char(c)?,
        }
    }
    Ok(())
}

fn write_json_string(out: &mut dyn fmt::Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            c => write_escaped(out, c.encode_utf8(&mut [0; 4]))?,
        }
    }
    out.write_char('"')
}

/// A point in time in UTC.
#[derive(Debug, PartialEq, Eq)]
struct Time {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    millisecond: u64,
}

impl Time {
    /// The proleptic Gregorian calendar, counted in eras of 400 years that begin in March, so that
    /// leap days come last.
    fn from_unix_ms(ms: u128) -> Self {
        let ms = u64::try_from(ms).unwrap_or(u64::MAX);
        let (days, ms_of_day) = (ms / 86_400_000, ms % 86_400_000);
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * march_month + 2) / 5 + 1,
            hour: ms_of_day / 3_600_000,
            minute: ms_of_day / 60_000 % 60,
            second: ms_of_day / 1_000 % 60,
            millisecond: ms_of_day % 1_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str) -> Line<'static> {
        Line {
            now_ms: 1_795_247_652_001,
            level: Level::INFO,
            logger: "kafka.server.BrokerLifecycleManager",
            fields: Fields {
                message: message.to_owned(),
                others: vec![("topic", "t".to_owned()), ("peer", "10.0.0.7\u{1b}".to_owned())],
            },
        }
    }

    #[test]
    fn a_text_line_has_kafkas_shape() {
        let mut text = String::new();
        line("[BrokerLifecycleManager id=1] ready").write_text(&mut text).unwrap();
        assert_eq!(
            text,
            "[2026-11-21 07:54:12,001] INFO [BrokerLifecycleManager id=1] ready peer=10.0.0.7\\u001b (kafka.server.BrokerLifecycleManager)\n"
        );
    }

    #[test]
    fn a_json_line_is_one_object() {
        let mut text = String::new();
        line("a \"quoted\"\nline \\").write_json(&mut text).unwrap();
        assert_eq!(
            text,
            "{\"timestamp\":\"2026-11-21T07:54:12.001Z\",\"level\":\"INFO\",\"logger\":\"kafka.server.BrokerLifecycleManager\",\"message\":\"a \\\"quoted\\\"\\nline \\\\\",\"topic\":\"t\",\"peer\":\"10.0.0.7\\u001b\"}\n"
        );
    }

    #[test]
    fn the_calendar_knows_leap_years() {
        let day = |ms| {
            let time = Time::from_unix_ms(ms);
            (time.year, time.month, time.day)
        };
        assert_eq!(day(0), (1970, 1, 1));
        assert_eq!(day(951_782_400_000), (2000, 2, 29));
        assert_eq!(day(951_868_800_000), (2000, 3, 1));
        assert_eq!(day(4_107_542_400_000), (2100, 3, 1));
        assert_eq!(day(1_798_761_599_999), (2026, 12, 31));
    }

    #[test]
    fn levels_come_from_kafkas_variables() {
        let levels = |root: &str, loggers: &str| {
            LogLevels::from_variables(|name| match name {
                ROOT_VARIABLE => Some(root.to_owned()),
                LOGGERS_VARIABLE => Some(loggers.to_owned()),
                _ => None,
            })
        };
        let found = levels("warn", "kafka.controller=TRACE, klamm=DEBUG").unwrap();
        assert_eq!(found.root, LevelFilter::WARN);
        assert_eq!(found.loggers["kafka.controller"], LevelFilter::TRACE);
        assert_eq!(levels("", "").unwrap().root, LevelFilter::INFO);
        assert!(matches!(levels("loud", ""), Err(LoggingError::UnknownLevel { .. })));
        assert!(matches!(levels("", "kafka"), Err(LoggingError::NotAnEntry { .. })));
    }

    #[test]
    fn fatal_and_all_are_log4js_names_of_levels_that_exist() {
        assert_eq!(level(ROOT_VARIABLE, "FATAL").unwrap(), LevelFilter::ERROR);
        assert_eq!(level(ROOT_VARIABLE, "ALL").unwrap(), LevelFilter::TRACE);
        assert_eq!(level(ROOT_VARIABLE, "OFF").unwrap(), LevelFilter::OFF);
    }
}
