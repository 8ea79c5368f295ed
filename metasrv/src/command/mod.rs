//! The commands of the binary `metasrv`.
//!
//! | file | command |
//! | --- | --- |
//! | `mod.rs` | what there is, and `serve` |
//! | `configuration.rs` | `config check`, `config show` |
//! | `health.rs` | `health`: a probe for images without a shell |
//! | `crate::playground` | `playground` and its commands for a second terminal |

mod configuration;
mod health;

use std::future::Future;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::setting::Flags;
use crate::config::{self, Config, Problems};
use crate::faults::Faults;
use crate::{logging, playground, server};

/// The command line or the configuration is wrong: EX_USAGE of sysexits.h. Nothing was started.
pub const USAGE: u8 = 64;

/// It did not work.
pub const FAILED: u8 = 1;

#[derive(Parser)]
#[command(name = "metasrv", version, about = "A metadata server for sharded storage systems")]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a replica
    Serve(Serve),
    /// Look at the configuration without running anything
    Config {
        #[command(subcommand)]
        command: configuration::Command,
    },
    /// Ask a replica on this machine whether it is live, or ready: exit code 0 or 1
    Health(health::Arguments),
    /// Run a whole cluster on this machine, to look at and to break
    Playground(playground::Arguments),
}

#[derive(clap::Args)]
struct Serve {
    #[command(flatten)]
    settings: Flags,
    /// Offer faults on the HTTP port, to see what becomes of a leader that suffers them: see docs/fault-matrix.md
    #[arg(long, hide = true)]
    fault_injection: bool,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // There is nobody left to tell if the terminal is gone.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match cli.command {
        Command::Serve(arguments) => match config::load(&arguments.settings, std::env::vars_os()).config {
            Ok(config) => serve(config, arguments.fault_injection.then(Faults::default)),
            Err(problems) => refuse(&problems),
        },
        Command::Config { command } => configuration::run(&command),
        Command::Health(arguments) => on_this_thread(health::run(arguments)),
        Command::Playground(arguments) => playground::main(arguments),
    }
}

fn serve(config: Config, faults: Option<Faults>) -> ExitCode {
    if let Err(error) = logging::start(&config.log) {
        return fail(&error);
    }
    // Before there are other threads, which inherit it. The allocator asks for pages of 2 MiB, of which a region needs 48
    // bytes: much of the memory would be there and hold nothing. A kernel that knows no such pages refuses, and need not care.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no threads to run on: {error}")),
    };
    let result = runtime.block_on(server::run(config, faults));
    // Whatever still blocks a thread has had its time.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

/// Runs a short command to its end.
fn on_this_thread(command: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => fail(&format!("no runtime: {error}")),
    }
}

/// Says what failed.
fn fail(error: &str) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(FAILED)
}

/// Says everything that is wrong with the configuration.
fn refuse(problems: &Problems) -> ExitCode {
    for problem in &problems.0 {
        eprintln!("error: {problem}");
    }
    ExitCode::from(USAGE)
}
