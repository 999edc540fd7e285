//! The `klamm` command.

use std::process::ExitCode;

use klamm::cli::{self, Console, Execution, ExitStatus};

fn main() -> ExitCode {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let mut console = Console { out: &mut out, err: &mut err };
    match cli::execute(std::env::args_os(), std::env::vars_os(), &mut console) {
        Execution::Done(status) => status.into(),
        Execution::Serve { loaded, log_format } => {
            match cli::start_logging(log_format, &loaded.advice) {
                Ok(log) => {
                    let status = klamm::server::run(loaded.config);
                    log.finish();
                    status.into()
                }
                Err(error) => {
                    console.complain(error);
                    ExitStatus::Usage.into()
                }
            }
        }
    }
}
