//! From the settings' texts to a [`Config`]: every text is looked at, and everything that is wrong comes out at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use metasrv_core::timing::Timing;

use super::source::{Settings, Value};
use super::tls;
use super::{Config, LogConfig, LogFormat, Problem, Problems, StoreConfig};

/// Names stand in keys, logs and metrics; no host name's label is longer.
const LONGEST_NAME: usize = 63;

/// A prefix stands in front of every key.
const LONGEST_PREFIX: usize = 128;

/// Levels by their names in a filter.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Checks everything, and completes `settings` by what follows from them. `problems` are those found before.
pub fn check(settings: &mut Settings, problems: Vec<Problem>) -> Result<Config, Problems> {
    let mut checker = Checker { settings, problems };
    let grpc_addr = checker.listen_addr("grpc-addr");
    let http_addr = checker.listen_addr("http-addr");
    if grpc_addr.is_some() && grpc_addr == http_addr {
        checker.wrong("http-addr", "must differ from grpc-addr: one port takes one protocol");
    }
    let advertise_addr = checker.advertise_addr(grpc_addr);
    let name = checker.name(grpc_addr);
    let store = checker.store();
    let prefix = checker.prefix();
    let timing = checker.timing();
    let replicas_tls = tls::of_replicas(&mut checker);
    let etcd_tls = tls::of_etcd(&mut checker, store.as_ref());
    let log = checker.log();
    match (name, grpc_addr, http_addr, advertise_addr, store, prefix, timing, log) {
        (
            Some(name),
            Some(grpc_addr),
            Some(http_addr),
            Some(advertise_addr),
            Some(store),
            Some(prefix),
            Some(timing),
            Some(log),
        ) if checker.problems.is_empty() => Ok(Config {
            name,
            grpc_addr,
            http_addr,
            advertise_addr,
            store,
            prefix,
            timing,
            tls: replicas_tls,
            etcd_tls,
            log,
        }),
        _ => Err(Problems(checker.problems)),
    }
}

/// The address under which a local process reaches one that listens here: loopback for "every address".
pub fn loopback_of(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

pub(super) struct Checker<'a> {
    settings: &'a mut Settings,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    pub(super) fn wrong(&mut self, name: &str, rule: impl Into<String>) {
        self.problems.push(Problem { subject: self.settings.subject(name), rule: rule.into() });
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.settings.get(name).map(|value| value.text.clone())
    }

    fn listen_addr(&mut self, name: &str) -> Option<SocketAddr> {
        match self.text(name)?.parse::<SocketAddr>() {
            Ok(addr) if addr.port() != 0 => Some(addr),
            Ok(_) => {
                self.wrong(name, "must have a port other than 0: others must know where to go");
                None
            }
            Err(_) => {
                self.wrong(name, "must be IP:PORT, such as 127.0.0.1:3002, 0.0.0.0:3002 or [::]:3002");
                None
            }
        }
    }

    fn advertise_addr(&mut self, grpc_addr: Option<SocketAddr>) -> Option<String> {
        let Some(text) = self.text("advertise-addr") else {
            let grpc_addr = grpc_addr?;
            if grpc_addr.ip().is_unspecified() {
                self.wrong(
                    "advertise-addr",
                    format!("must be set: grpc-addr {grpc_addr} is every address, and no address that others can use"),
                );
                return None;
            }
            self.settings.derive("advertise-addr", grpc_addr.to_string());
            return Some(grpc_addr.to_string());
        };
        let Some((host, _)) = host_and_port(&text) else {
            self.wrong(
                "advertise-addr",
                "must be HOST:PORT, such as metasrv-0.example:3002 or 10.0.0.1:3002",
            );
            return None;
        };
        if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
            self.wrong("advertise-addr", "must be an address that others can use, not every address");
            return None;
        }
        Some(text)
    }

    fn name(&mut self, grpc_addr: Option<SocketAddr>) -> Option<String> {
        let Some(name) = self.text("name") else {
            let host =
                host_name().filter(|host| is_name(host) && host.len() <= LONGEST_NAME - "-65535".len());
            let name = format!("{}-{}", host.as_deref().unwrap_or("metasrv"), grpc_addr?.port());
            self.settings.derive("name", name.clone());
            return Some(name);
        };
        if !is_name(&name) {
            self.wrong(
                "name",
                format!("must be 1 to {LONGEST_NAME} letters, digits, '.', '_' or '-', beginning with a letter or digit"),
            );
            return None;
        }
        Some(name)
    }

    fn store(&mut self) -> Option<StoreConfig> {
        match (self.settings.get("etcd-endpoints").cloned(), self.settings.get("embedded").cloned()) {
            (Some(etcd), Some(embedded)) => {
                let rule = format!(
                    "excludes embedded = {:?} ({}): set one of the two",
                    embedded.text, embedded.source
                );
                self.wrong("etcd-endpoints", rule);
                self.endpoints(&etcd);
                None
            }
            (Some(etcd), None) => self.endpoints(&etcd).map(|endpoints| StoreConfig::Etcd { endpoints }),
            (None, Some(embedded)) if embedded.text.is_empty() => {
                self.wrong("embedded", "must be a directory");
                None
            }
            (None, Some(embedded)) => Some(StoreConfig::Embedded { dir: PathBuf::from(embedded.text) }),
            (None, None) => {
                self.wrong(
                    "etcd-endpoints",
                    "must be set, such as http://127.0.0.1:2379; or set embedded to a directory",
                );
                None
            }
        }
    }

    fn endpoints(&mut self, value: &Value) -> Option<Vec<String>> {
        let endpoints: Vec<String> =
            value.text.split(',').map(|part| part.trim().trim_end_matches('/').to_owned()).collect();
        let mut sound = true;
        for endpoint in &endpoints {
            let bare = endpoint.strip_prefix("http://").or(endpoint.strip_prefix("https://"));
            let reached = bare.and_then(host_and_port);
            if reached.is_none() {
                sound = false;
                self.wrong(
                    "etcd-endpoints",
                    format!("{endpoint:?} must be http://HOST:PORT or https://HOST:PORT, such as http://127.0.0.1:2379"),
                );
            }
        }
        sound.then_some(endpoints)
    }

    fn prefix(&mut self) -> Option<String> {
        let prefix = self.text("prefix")?;
        let segments =
            prefix.strip_prefix('/').map(|rest| rest.split('/').all(|segment| !segment.is_empty()));
        let plain = prefix.chars().all(|c| c.is_ascii_graphic());
        if segments != Some(true) || !plain || prefix.len() > LONGEST_PREFIX {
            self.wrong(
                "prefix",
                format!(
                    "must begin with '/', not end with it, contain no empty part, no space and only ASCII, and be at \
                     most {LONGEST_PREFIX} bytes long, such as /metasrv or /databases/blue"
                ),
            );
            return None;
        }
        Some(prefix)
    }

    fn timing(&mut self) -> Option<Timing> {
        let election_ttl = self.duration("etcd-lease-ttl");
        let heartbeat_interval = self.duration("heartbeat-interval");
        let region_lease = self.duration("region-lease");
        let full_rate_nodes = self.number("full-rate-nodes");
        let timing = Timing {
            full_rate_nodes: full_rate_nodes?,
            election_ttl: election_ttl?,
            heartbeat_interval: heartbeat_interval?,
            region_lease: region_lease?,
        };
        for violation in timing.validate() {
            self.wrong(violation.field, violation.rule);
        }
        Some(timing)
    }

    fn duration(&mut self, name: &str) -> Option<Duration> {
        match humantime::parse_duration(&self.text(name)?) {
            Ok(duration) => Some(duration),
            Err(_) => {
                self.wrong(name, "must be a duration with its unit, such as 5s, 500ms or 1m");
                None
            }
        }
    }

    fn number(&mut self, name: &str) -> Option<usize> {
        let number = self.text(name)?.replace('_', "").parse().ok();
        if number.is_none() {
            self.wrong(name, "must be a whole number");
        }
        number
    }

    fn log(&mut self) -> Option<LogConfig> {
        let level = self.text("log-level")?;
        for part in level.split(',') {
            let named = part.rsplit_once('=').map_or(part, |(_, named)| named).trim();
            if !LEVELS.contains(&named.to_lowercase().as_str()) {
                let nearest = LEVELS
                    .iter()
                    .max_by(|a, b| strsim::jaro_winkler(a, named).total_cmp(&strsim::jaro_winkler(b, named)));
                let nearest = nearest.map_or(String::new(), |nearest| format!("; did you mean {nearest}?"));
                self.wrong(
                    "log-level",
                    format!("{named:?} is not a level, which are {}{nearest}", LEVELS.join(", ")),
                );
            }
        }
        let format = match self.text("log-format")?.as_str() {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => {
                self.wrong("log-format", "must be text or json");
                None
            }
        };
        Some(LogConfig { level, format: format? })
    }
}

/// Splits `host:port` where both are there: a name, an IPv4 address, or an IPv6 address in brackets.
fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
    let sound = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.strip_suffix(']')?.parse::<Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        }
    };
    sound.then_some((host, port))
}

fn is_name(text: &str) -> bool {
    text.len() <= LONGEST_NAME
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// The first label of the host's name.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::fs::read_to_string("/etc/hostname"));
    let name = name.ok().or_else(|| std::env::var("HOSTNAME").ok())?;
    name.trim().split('.').next().map(str::to_owned)
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
