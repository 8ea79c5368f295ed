//! The list of settings. Flags, environment variables, file keys and the documentation all come from it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command};

/// One thing that can be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setting {
    /// The flag without dashes in front, and the key in the file.
    pub name: &'static str,
    /// What its value looks like.
    pub value: &'static str,
    /// What holds if nobody says anything; none: see `help`.
    pub default: Option<&'static str>,
    /// What it does, in a phrase.
    pub help: &'static str,
}

const fn setting(
    name: &'static str,
    value: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Setting {
    Setting { name, value, default, help }
}

/// Every setting, in the order in which people read them.
pub const SETTINGS: &[Setting] = &[
    setting("name", "NAME", None, "Name among the replicas [default: the host's name and the gRPC port]"),
    setting("grpc-addr", "IP:PORT", Some("127.0.0.1:3002"), "Where to listen for gRPC"),
    setting(
        "http-addr",
        "IP:PORT",
        Some("127.0.0.1:3003"),
        "Where to listen for /livez, /readyz and /metrics",
    ),
    setting("advertise-addr", "HOST:PORT", None, "How others reach the gRPC address [default: grpc-addr]"),
    setting("etcd-endpoints", "URL,…", None, "Members of the etcd cluster, such as http://10.0.0.1:2379"),
    setting(
        "embedded",
        "DIR",
        None,
        "Keep the state in this directory instead of etcd; one replica, no election",
    ),
    setting("prefix", "/PREFIX", Some("/metasrv"), "Begins every key in the store"),
    setting("etcd-lease-ttl", "DURATION", Some("5s"), "TTL of the etcd lease under the leader's key"),
    setting("heartbeat-interval", "DURATION", Some("1s"), "Time between two heartbeats of a node"),
    setting(
        "full-rate-nodes",
        "COUNT",
        Some("10000"),
        "Datanodes up to which that interval holds; it grows with more of them, up to two fifths of region-lease",
    ),
    setting(
        "region-lease",
        "DURATION",
        Some("5s"),
        "How long a datanode may write to a region without renewal",
    ),
    setting(
        "tls-ca",
        "FILE",
        None,
        "Authorities of the certificates of nodes, operators and other replicas (PEM)",
    ),
    setting(
        "tls-certificate",
        "FILE",
        None,
        "This replica's certificate, for its ports and for other replicas (PEM)",
    ),
    setting("tls-key", "FILE", None, "The certificate's private key (PEM)"),
    setting(
        "tls-clients",
        "WHAT",
        Some("required"),
        "required: who connects needs a certificate; none: nobody does",
    ),
    setting(
        "tls-http",
        "on|off",
        Some("on"),
        "Whether the HTTP port takes TLS as well, where the gRPC port does",
    ),
    setting(
        "etcd-tls-ca",
        "FILE",
        None,
        "Authorities of etcd's certificates, where its addresses are https (PEM)",
    ),
    setting("etcd-tls-certificate", "FILE", None, "The certificate that etcd is shown (PEM)"),
    setting("etcd-tls-key", "FILE", None, "That certificate's private key (PEM)"),
    setting(
        "log-level",
        "LEVEL",
        Some("info"),
        "off, error, warn, info, debug, trace; by module: warn,metasrv=debug",
    ),
    setting("log-format", "FORMAT", Some("text"), "text or json"),
];

/// Names the file that settings are read from. Not a setting itself: a file cannot name another.
const CONFIG_FLAG: &str = "config";

/// The environment's name for [`Flags::config`].
pub const CONFIG_VARIABLE: &str = "METASRV_CONFIG";

impl Setting {
    /// Its environment variable.
    pub fn variable(&self) -> String {
        format!("METASRV_{}", self.name.replace('-', "_").to_uppercase())
    }

    /// The setting of this name.
    pub fn named(name: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }
}

/// What was said on the command line: the settings' texts, not looked at yet.
#[derive(Clone, Default, Debug)]
pub struct Flags {
    /// The file.
    pub config: Option<PathBuf>,
    /// The settings.
    pub values: BTreeMap<&'static str, String>,
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        augment(command, SETTINGS.iter())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Flags::augment_args(command)
    }
}

/// Adds flags for the file and for these settings.
fn augment<'a>(command: Command, settings: impl Iterator<Item = &'a Setting>) -> Command {
    let file = Arg::new(CONFIG_FLAG)
        .long(CONFIG_FLAG)
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help(format!(
            "Read settings from this TOML file; its keys are the flags' names [env: {CONFIG_VARIABLE}]"
        ));
    command.arg(file).args(settings.map(|setting| {
        let default = setting.default.map_or(String::new(), |default| format!(" [default: {default}]"));
        let help = format!("{}{default} [env: {}]", setting.help, setting.variable());
        Arg::new(setting.name).long(setting.name).value_name(setting.value).help(help)
    }))
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Flags, clap::Error> {
        let unusable = |error: clap::parser::MatchesError| clap::Error::raw(ErrorKind::InvalidValue, error);
        let config = matches.try_get_one::<PathBuf>(CONFIG_FLAG).map_err(unusable)?.cloned();
        let mut values = BTreeMap::new();
        for setting in SETTINGS {
            // A command may take only some of the settings.
            if let Ok(Some(value)) = matches.try_get_one::<String>(setting.name) {
                values.insert(setting.name, value.clone());
            }
        }
        Ok(Flags { config, values })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Flags::from_arg_matches(matches)?;
        Ok(())
    }
}

/// What a health probe needs to know: where to ask, and how hands are shaken there.
const OF_PROBES: [&str; 7] =
    ["grpc-addr", "http-addr", "advertise-addr", "tls-ca", "tls-certificate", "tls-key", "tls-http"];

/// The file and what a health probe needs to know.
#[derive(Clone, Default, Debug)]
pub struct HttpFlags(pub Flags);

impl clap::Args for HttpFlags {
    fn augment_args(command: Command) -> Command {
        augment(command, SETTINGS.iter().filter(|setting| OF_PROBES.contains(&setting.name)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        HttpFlags::augment_args(command)
    }
}

impl clap::FromArgMatches for HttpFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<HttpFlags, clap::Error> {
        Flags::from_arg_matches(matches).map(HttpFlags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}
