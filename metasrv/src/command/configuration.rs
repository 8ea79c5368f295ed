//! `metasrv config check` and `metasrv config show`: what a replica would run with, and whether it would.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use serde::Serialize;

use super::{FAILED, refuse};
use crate::config::setting::{Flags, SETTINGS};
use crate::config::source::Settings;
use crate::config::{self};

/// What is done with the configuration.
#[derive(Subcommand)]
pub enum Command {
    /// Print ok, or everything that is wrong (exit code 64)
    Check(Flags),
    /// Print every setting's effective value and where it comes from
    Show(ShowArguments),
}

/// How it is shown.
#[derive(Args)]
pub struct ShowArguments {
    #[command(flatten)]
    flags: Flags,
    /// What the output looks like
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// One setting in `config show -o json`.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    value: Option<&'a str>,
    source: Option<String>,
}

/// Runs it.
pub fn run(command: &Command) -> ExitCode {
    match command {
        Command::Check(flags) => match config::load(flags, std::env::vars_os()).config {
            Ok(_) => print("ok"),
            Err(problems) => refuse(&problems),
        },
        Command::Show(ShowArguments { flags, output }) => {
            let loaded = config::load(flags, std::env::vars_os());
            let shown = print(&render(&loaded.settings, *output));
            match loaded.config {
                Ok(_) => shown,
                Err(problems) => refuse(&problems),
            }
        }
    }
}

fn render(settings: &Settings, format: Format) -> String {
    let rows = SETTINGS.iter().map(|setting| {
        let value = settings.get(setting.name);
        Row {
            name: setting.name,
            value: value.map(|value| value.text.as_str()),
            source: value.map(|value| value.source.to_string()),
        }
    });
    match format {
        Format::Json => {
            let rows: Vec<Row> = rows.collect();
            serde_json::to_string_pretty(&rows).unwrap_or_else(|error| error.to_string())
        }
        Format::Table => {
            let mut table = Table::new();
            table.load_preset(presets::NOTHING).set_header(["SETTING", "VALUE", "SOURCE"]);
            for row in rows {
                table.add_row([
                    row.name,
                    row.value.unwrap_or("-"),
                    row.source.as_deref().unwrap_or("not set"),
                ]);
            }
            table.trim_fmt()
        }
    }
}

/// Prints data. A reader that closed its end, such as `head`, has all it wants.
fn print(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("error: cannot write to stdout: {error}");
            ExitCode::from(FAILED)
        }
        _ => ExitCode::SUCCESS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(format: Format) -> String {
        let mut flags = Flags::default();
        flags.values.insert("embedded", "/data".to_owned());
        flags.values.insert("grpc-addr", "10.0.0.1:3002".to_owned());
        render(&config::load(&flags, []).settings, format)
    }

    #[test]
    fn every_setting_is_shown_with_its_source() {
        let rows: Vec<serde_json::Value> = serde_json::from_str(&rendered(Format::Json)).unwrap();
        assert_eq!(rows.len(), SETTINGS.len());
        let row = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap();
        assert_eq!(row("grpc-addr")["source"], "flag");
        assert_eq!(row("advertise-addr")["value"], "10.0.0.1:3002");
        assert_eq!(row("region-lease")["source"], "default");
        assert!(row("etcd-endpoints")["value"].is_null());
        let table = rendered(Format::Table);
        assert!(table.lines().next().unwrap().contains("SETTING"), "{table}");
        assert!(
            table.lines().any(|line| line.contains("etcd-endpoints") && line.ends_with("not set")),
            "{table}"
        );
    }
}
