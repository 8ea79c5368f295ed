//! What the command line takes, what it refuses, and that the book names all of it.

use clap::CommandFactory as _;

use super::*;

/// A command line as it would be typed.
pub fn parsed(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

/// Every command that does something, as it is typed.
fn commands() -> Vec<String> {
    fn walk(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        let mut below = command.get_subcommands().filter(|below| below.get_name() != "help").peekable();
        if below.peek().is_none() {
            found.push(path.to_owned());
        }
        for command in below {
            walk(command, &format!("{path} {}", command.get_name()), found);
        }
    }
    let mut found = Vec::new();
    walk(&Cli::command(), "metactl", &mut found);
    found
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

/// Goal: the book tells of every command, and shows each at work. Method: the commands as clap has them, against the tables and
/// the examples of docs/metactl.md.
#[test]
fn the_book_names_every_command_and_has_an_example_of_it() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metactl.md")).unwrap();
    let commands = commands();
    assert!(commands.len() >= 30, "{commands:?}");
    let starts = |line: &str, command: &str| {
        line.strip_prefix(command)
            .is_some_and(|rest| rest.is_empty() || !rest.starts_with(char::is_alphanumeric))
    };
    for command in commands {
        let row = page.lines().any(|line| line.strip_prefix("| `").is_some_and(|row| starts(row, &command)));
        assert!(row, "docs/metactl.md has no row for `{command}`");
        let examples = page.split("```").skip(1).step_by(2);
        let shown = examples.flat_map(str::lines).any(|line| starts(line, &command));
        assert!(shown, "docs/metactl.md has no example of `{command}`");
    }
}

/// Goal: every change has a reason for the record. Method: all commands that are no looks.
#[test]
fn every_change_takes_a_reason() {
    let changes = [
        "leader transfer",
        "node cordon 1",
        "node uncordon 1",
        "node drain 1",
        "node decommission 1",
        "node restarting 1 --for 60s",
        "region create --count 1",
        "region migrate 7",
        "region drop 7",
        "failover pause --for 1m",
        "failover resume",
        "maintenance on",
        "rebalance",
        "procedure cancel 9",
    ];
    for change in changes {
        let line = format!("metactl {change} --reason because");
        assert!(parsed(&line).is_ok(), "{line}");
    }
}

#[test]
fn global_flags_stand_before_and_after_the_command() {
    for line in [
        "metactl --metasrv a:1,b:2 -o json --timeout 3s node list",
        "metactl node list --metasrv a:1,b:2 -o json --timeout 3s",
        "metactl --metasrv a:1,b:2 node -o json list --timeout 3s",
    ] {
        let global = parsed(line).ok().map(|cli| cli.global).expect(line);
        assert_eq!(global.metasrv, ["a:1", "b:2"], "{line}");
        assert_eq!(global.output, Format::Json, "{line}");
        assert_eq!(global.timeout, Some(Duration::from_secs(3)), "{line}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for line in [
        "metactl",
        "metactl node",
        "metactl node drain",
        "metactl node drain 0",
        "metactl node restarting 1",
        "metactl node restarting 1 --for 60s --cancel",
        "metactl node restarting 1 --for 2h",
        "metactl region create",
        "metactl region create --count 0",
        "metactl region create --count 10001",
        "metactl region create --count 1 --on 0",
        "metactl region list --node x",
        "metactl region migrate",
        "metactl region migrate 7 --to 0",
        "metactl region drop",
        "metactl failover pause",
        "metactl failover pause --for 25h",
        "metactl maintenance",
        "metactl maintenance maybe",
        "metactl procedure cancel",
        "metactl events --limit 0",
        "metactl events --limit 10001",
        "metactl events --since yesterday",
        "metactl history region 7 --at noon",
        "metactl why",
        "metactl why region 0",
        "metactl plan drain",
        "metactl wait",
        "metactl wait --for luck",
        "metactl completions cmd",
        "metactl --timeout 0s status",
        "metactl --timeout 1000years status",
        "metactl --timeout soon status",
        "metactl -o yaml status",
    ] {
        let error = parsed(line).err().expect(line);
        assert!(error.use_stderr(), "{line}");
    }
}
