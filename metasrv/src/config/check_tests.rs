//! Tests of [`super`]: each rule, and that all are reported at once.

use std::ffi::OsString;

use super::super::setting::Flags;
use super::super::{Config, load};
use super::*;

fn checked(values: &[(&'static str, &str)]) -> Result<Config, Problems> {
    let values = values.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    load(&Flags { config: None, values }, Vec::<(OsString, OsString)>::new()).config
}

fn problems(values: &[(&'static str, &str)]) -> Vec<String> {
    checked(values).unwrap_err().0.iter().map(Problem::to_string).collect()
}

/// What is wrong with one setting, where everything else is right.
fn problem(name: &'static str, value: &str) -> String {
    let mut values = vec![(name, value)];
    if name != "etcd-endpoints" {
        values.push(("embedded", "/data"));
    }
    match problems(&values).as_slice() {
        [one] => one.clone(),
        other => panic!("{name} = {value}: {other:?}"),
    }
}

#[test]
fn little_is_enough() {
    let config = checked(&[("embedded", "/data"), ("name", "one")]).unwrap();
    assert_eq!(
        config,
        Config {
            name: "one".to_owned(),
            grpc_addr: "127.0.0.1:3002".parse().unwrap(),
            http_addr: "127.0.0.1:3003".parse().unwrap(),
            advertise_addr: "127.0.0.1:3002".to_owned(),
            store: StoreConfig::Embedded { dir: PathBuf::from("/data") },
            prefix: "/metasrv".to_owned(),
            timing: Timing::default(),
            tls: None,
            etcd_tls: None,
            log: LogConfig { level: "info".to_owned(), format: LogFormat::Text },
        }
    );
    assert!(checked(&[("embedded", "/data")]).unwrap().name.ends_with("-3002"));
}

#[test]
fn endpoints_are_split() {
    let config = checked(&[("etcd-endpoints", "http://a:2379, http://[::1]:2379/")]).unwrap();
    let endpoints = vec!["http://a:2379".to_owned(), "http://[::1]:2379".to_owned()];
    assert_eq!(config.store, StoreConfig::Etcd { endpoints });
    for wrong in
        ["", "a:2379", "ftp://a:2379", "http://a", "http://:1", "http://a:0", "http://a:1/x", "http://a b:1"]
    {
        assert!(problem("etcd-endpoints", wrong).contains("must be http://HOST:PORT"), "{wrong}");
    }
}

#[test]
fn exactly_one_store() {
    assert!(problems(&[])[0].contains("must be set"));
    let both = problems(&[("embedded", "/data"), ("etcd-endpoints", "http://a:1")]);
    assert_eq!(both.len(), 1);
    assert!(both[0].contains("excludes embedded = \"/data\" (flag)"), "{both:?}");
    assert!(problems(&[("embedded", "")])[0].contains("must be a directory"));
}

#[test]
fn addresses_are_usable_by_others() {
    assert!(problem("grpc-addr", "localhost").contains("must be IP:PORT"));
    assert!(problem("grpc-addr", "127.0.0.1:0").contains("other than 0"));
    assert!(problem("grpc-addr", "0.0.0.0:3002").contains("advertise-addr: must be set"));
    assert!(problem("http-addr", "127.0.0.1:3002").contains("must differ"));
    assert!(problem("advertise-addr", "[::]:3002").contains("not every address"));
    assert!(problem("advertise-addr", "0.0.0.0:3002").contains("not every address"));
    assert!(problem("advertise-addr", "host").contains("must be HOST:PORT"));
    let config =
        checked(&[("embedded", "/d"), ("grpc-addr", "0.0.0.0:3002"), ("advertise-addr", "meta-0.svc:3002")]);
    assert_eq!(config.unwrap().advertise_addr, "meta-0.svc:3002");
}

#[test]
fn names_and_prefixes() {
    for wrong in ["", "a b", "-a", "ä", &"x".repeat(64)] {
        assert!(problem("name", wrong).contains("must be 1 to 63"), "{wrong}");
    }
    for wrong in ["", "/", "metasrv", "/a/", "/a//b", "/a b", "/ä", &format!("/{}", "x".repeat(128))] {
        assert!(problem("prefix", wrong).contains("must begin with '/'"), "{wrong}");
    }
    assert_eq!(checked(&[("embedded", "/d"), ("prefix", "/a/b")]).unwrap().prefix, "/a/b");
}

#[test]
fn durations_and_logs() {
    assert!(problem("region-lease", "5").contains("with its unit"));
    assert!(problem("etcd-lease-ttl", "1s").contains("at least 2s"));
    assert!(problem("log-level", "inof").contains("did you mean info?"));
    assert!(problem("log-format", "xml").contains("text or json"));
    let config = checked(&[("embedded", "/d"), ("log-level", "warn,metasrv=debug")]).unwrap();
    assert_eq!(config.log.level, "warn,metasrv=debug");
}

#[test]
fn everything_wrong_is_reported_at_once() {
    let problems = problems(&[
        ("name", "a b"),
        ("grpc-addr", "x"),
        ("http-addr", "y"),
        ("advertise-addr", "z"),
        ("etcd-endpoints", "a,b"),
        ("prefix", "p"),
        ("etcd-lease-ttl", "1500ms"),
        ("heartbeat-interval", "1ms"),
        ("region-lease", "1ms"),
        ("log-level", "loud"),
        ("log-format", "yaml"),
    ]);
    // Ten settings with one each, etcd-endpoints, etcd-lease-ttl and region-lease with one more.
    for name in [
        "name",
        "grpc-addr",
        "http-addr",
        "advertise-addr",
        "etcd-endpoints",
        "prefix",
        "etcd-lease-ttl",
        "heartbeat-interval",
        "region-lease",
        "log-level",
        "log-format",
    ] {
        assert!(
            problems.iter().any(|problem| problem.starts_with(&format!("{name} = "))),
            "{name}: {problems:#?}"
        );
    }
}

#[test]
fn every_address_is_reached_over_loopback() {
    let reached = |text: &str| loopback_of(text.parse().unwrap()).to_string();
    assert_eq!(reached("0.0.0.0:1"), "127.0.0.1:1");
    assert_eq!(reached("[::]:1"), "[::1]:1");
    assert_eq!(reached("10.0.0.1:1"), "10.0.0.1:1");
}
