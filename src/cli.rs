//! The command line: arguments, and the output of commands. The work of a command is done in other modules.
//!
//! `main` runs the broker itself; every other command is done when [`execute`] returns.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use crate::config::{Advice, Environment, Loaded, Sources};
use crate::logging::{self, Log, LogFormat, LogLevels, LoggingError};
use clap::{Args, Parser, Subcommand};

pub mod exit_status;
pub mod format;
pub mod show;

pub use exit_status::ExitStatus;

/// A Kafka-compatible broker without a JVM.
///
/// Without arguments it starts one combined node on localhost:9092 with its data in ./klamm-data.
#[derive(Debug, Parser)]
#[command(
    name = "klamm",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Values come from defaults < FILE < KAFKA_* environment variables < --override."
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    sources: SourceArguments,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Format the log directories of this node, as kafka-storage.sh format does.
    Format(format::FormatArguments),
    /// Print a random id, for a new cluster.
    RandomUuid,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print every value in force and where it comes from. Secrets are masked.
    Show {
        #[command(flatten)]
        sources: SourceArguments,
    },
}

#[derive(Debug, Args)]
struct SourceArguments {
    /// Kafka's server.properties.
    file: Option<PathBuf>,
    /// Set one key, over the file and the environment. May come more than once.
    #[arg(long = "override", value_name = "KEY=VALUE", value_parser = parse_override)]
    overrides: Vec<(String, String)>,
}

impl SourceArguments {
    fn with(self, environment: Environment) -> Sources {
        Sources { file: self.file, environment, overrides: self.overrides }
    }
}

fn parse_override(text: &str) -> Result<(String, String), OverrideError> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err(OverrideError),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("write KEY=VALUE, as in --override num.partitions=3")]
struct OverrideError;

/// The work that remains after the arguments are read.
#[derive(Debug)]
pub enum Execution {
    /// The command is done.
    Done(ExitStatus),
    /// Run the broker.
    Serve { loaded: Box<Loaded>, log_format: LogFormat },
}

/// The streams of a process, so that tests can read what a command prints.
pub struct Console<'a> {
    pub out: &'a mut dyn Write,
    pub err: &'a mut dyn Write,
}

impl std::fmt::Debug for Console<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Console")
    }
}

impl Console<'_> {
    /// Prints to the error stream. A failure is ignored: there is no other place to report it.
    pub fn complain(&mut self, message: impl std::fmt::Display) {
        drop(writeln!(self.err, "klamm: {message}"));
    }
}

/// Reads the arguments and runs every command but the broker itself.
pub fn execute(
    arguments: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    console: &mut Console<'_>,
) -> Execution {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(refusal) => return Execution::Done(print_usage(&refusal, console)),
    };
    let environment = Environment::from_variables(variables);
    match arguments.command {
        None => serve(&arguments.sources.with(environment), arguments.log_format, console),
        Some(Command::Config(ConfigCommand::Show { sources })) => {
            Execution::Done(show::run(&sources.with(environment), console))
        }
        Some(Command::Format(format)) => Execution::Done(format.run(environment, console)),
        Some(Command::RandomUuid) => {
            Execution::Done(print(console, &format!("{}\n", crate::random::uuid())))
        }
    }
}

fn serve(sources: &Sources, log_format: LogFormat, console: &mut Console<'_>) -> Execution {
    match Loaded::from_sources(sources) {
        Ok(loaded) => Execution::Serve { loaded: Box::new(loaded), log_format },
        Err(error) => {
            console.complain(error);
            Execution::Done(ExitStatus::Usage)
        }
    }
}

/// Sets up logging by flags and environment, and logs the advice about the configuration.
pub fn start_logging(log_format: LogFormat, advice: &[Advice]) -> Result<Log, LoggingError> {
    let levels = LogLevels::from_variables(|name| std::env::var(name).ok())?;
    let log = logging::init(log_format, &levels)?;
    for advice in advice {
        tracing::warn!(target: "kafka.server.KafkaConfig", "{advice}");
    }
    Ok(log)
}

/// Help and the version go to the output, everything else is a usage error.
fn print_usage(refusal: &clap::Error, console: &mut Console<'_>) -> ExitStatus {
    let text = refusal.to_string();
    if refusal.use_stderr() {
        drop(console.err.write_all(text.as_bytes()));
        ExitStatus::Usage
    } else {
        print(console, &text)
    }
}

/// Prints a command's output. If it cannot be written, the command fails.
fn print(console: &mut Console<'_>, text: &str) -> ExitStatus {
    match console.out.write_all(text.as_bytes()).and_then(|()| console.out.flush()) {
        Ok(()) => ExitStatus::Ok,
        Err(error) => {
            console.complain(format!("cannot write to the standard output: {error}"));
            ExitStatus::Runtime
        }
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Uuid;

    use super::*;

    fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (Execution, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let arguments = ["klamm"].iter().chain(arguments).map(OsString::from);
        let variables = variables.iter().map(|(k, v)| (OsString::from(k), OsString::from(v)));
        let mut console = Console { out: &mut out, err: &mut err };
        let execution = execute(arguments, variables, &mut console);
        (execution, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    fn status(arguments: &[&str]) -> ExitStatus {
        match run(arguments, &[]).0 {
            Execution::Done(status) => status,
            Execution::Serve { .. } => panic!("{arguments:?} starts a broker"),
        }
    }

    #[test]
    fn without_arguments_the_broker_is_started() {
        let (execution, _, _) = run(&[], &[("KAFKA_NODE_ID", "7")]);
        let Execution::Serve { loaded, log_format } = execution else { panic!("no broker") };
        assert_eq!(loaded.config.node_id, 7);
        assert_eq!(log_format, LogFormat::Text);
    }

    #[test]
    fn overrides_beat_the_environment() {
        let arguments = ["--override", "node.id=8", "--log-format", "json"];
        let (execution, _, _) = run(&arguments, &[("KAFKA_NODE_ID", "7")]);
        let Execution::Serve { loaded, log_format } = execution else { panic!("no broker") };
        assert_eq!(loaded.config.node_id, 8);
        assert_eq!(log_format, LogFormat::Json);
    }

    #[test]
    fn mistakes_of_the_caller_have_a_status_of_their_own() {
        assert_eq!(status(&["--no-such-flag"]), ExitStatus::Usage);
        assert_eq!(status(&["--override", "node.id"]), ExitStatus::Usage);
        assert_eq!(status(&["/no/such/server.properties"]), ExitStatus::Usage);
        assert_eq!(status(&["--override", "node.id=x"]), ExitStatus::Usage);
        assert_eq!(status(&["config"]), ExitStatus::Usage);
        let (_, out, err) = run(&["/no/such/server.properties"], &[]);
        assert_eq!(out, "");
        assert!(err.starts_with("klamm: cannot read /no/such/server.properties: "), "{err}");
    }

    #[test]
    fn help_and_version_are_answers() {
        assert_eq!(status(&["--help"]), ExitStatus::Ok);
        let (_, out, _) = run(&["--version"], &[]);
        assert_eq!(out, format!("klamm {}\n", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn a_random_id_is_printed_as_kafka_prints_it() {
        let (_, out, _) = run(&["random-uuid"], &[]);
        let id: Uuid = out.trim_end().parse().unwrap();
        assert!(!id.is_zero());
        assert_eq!(out.len(), 23);
    }
}
