//! What an operator's tools ask of a replica: probes, metrics, configuration, signals.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::{Command, Output};
use std::time::Duration;

use metasrv_tests::binaries::binary;
use metasrv_tests::cluster::Cluster;
use metasrv_tests::node::{FakeNode, Identity};
use metasrv_tests::ports::free_port;
use metasrv_tests::process::Process;
use metasrv_tests::replica::channel;
use metasrv_tests::wait::eventually;
use rustix::process::Signal;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

const LONG: Duration = Duration::from_secs(20);

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(binary(program)).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Goal: probes tell a dead replica from one that merely has no etcd. Method: leader and follower are live and ready;
/// without etcd they are live and not ready; with it back they are ready again.
#[tokio::test(flavor = "multi_thread")]
async fn live_does_not_depend_on_etcd_and_ready_does() {
    let cluster = Cluster::builder().replicas(2).timing("2s", "2s", "200ms").start().await;
    let answers = async |path: &str, expected: &str| {
        for replica in &cluster.replicas {
            let what = format!("{} answers {path} with {expected}", replica.name);
            eventually(LONG, &what, async || {
                let page = replica.http(path).await?;
                if page.starts_with(&format!("HTTP/1.1 {expected}")) { Ok(()) } else { Err(page) }
            })
            .await;
        }
    };
    answers("/livez", "200").await;
    answers("/readyz", "200").await;
    let verbose = cluster.replicas[0].http("/readyz?verbose").await.unwrap();
    assert!(verbose.contains("etcd"), "the checks are listed: {verbose}");
    let health = ["health", "--ready", "--http-addr"];
    let port = cluster.replicas[1].http_port;
    let probe = run("metasrv", &[&health[..], &[&format!("127.0.0.1:{port}")]].concat());
    assert!(probe.status.success(), "{} {}", text(&probe.stdout), text(&probe.stderr));

    cluster.etcd.as_ref().unwrap().pause_member(0);
    answers("/readyz", "503").await;
    answers("/livez", "200").await;
    cluster.etcd.as_ref().unwrap().resume_member(0);
    answers("/readyz", "200").await;
    let nobody = run("metasrv", &["health", "--ready", "--http-addr", &format!("127.0.0.1:{}", free_port())]);
    assert!(!nobody.status.success(), "nobody is there to be well");
}

/// Goal: the metrics tell what happens. Method: a node beats; its stream, its heartbeats and the term are counted.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_happens() {
    let cluster = Cluster::builder().start().await;
    let replica = &cluster.replicas[0];
    let mut node = FakeNode::new(Identity::datanode(1));
    node.connect(&replica.addr()).await.unwrap();
    cluster.create_regions(2, None).await;
    eventually(LONG, "both regions are granted", async || {
        let granted = node.beat().await.map_err(|status| status.to_string())?.granted().len();
        if granted == 2 { Ok(()) } else { Err(format!("{granted} are")) }
    })
    .await;
    let expected: [(&str, f64); 5] = [
        ("metasrv_leader", 1.0),
        ("metasrv_term", 1.0),
        ("metasrv_streams", 1.0),
        ("metasrv_pushers", 1.0),
        ("metasrv_regions", 2.0),
    ];
    for (name, expected) in expected {
        eventually(LONG, name, async || match replica.metric(name).await {
            Ok(value) if value.to_bits() == expected.to_bits() => Ok(()),
            other => Err(format!("{other:?}, not {expected}")),
        })
        .await;
    }
    for name in [
        "metasrv_heartbeats_total",
        "metasrv_region_grants_total",
        "metasrv_heartbeat_duration_seconds_count",
    ] {
        assert!(replica.metric(name).await.unwrap() >= 2.0, "{name}");
    }
    node.disconnect();
    eventually(LONG, "the stream's end is counted", async || match replica.metric("metasrv_streams").await {
        Ok(0.0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// Goal: a wrong configuration is reported whole, before any port is bound, with exit code 64.
/// Method: several mistakes at once, among them a key that is misspelt.
#[test]
fn a_wrong_configuration_is_reported_whole() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("metasrv.toml");
    std::fs::write(&file, "heartbeat-intervall = \"1s\"\n").unwrap();
    let file = file.display().to_string();
    for command in [&["config", "check"][..], &["serve"]] {
        let arguments =
            [command, &["--config", &file, "--etcd-lease-ttl", "1s", "--region-lease", "10ms"]].concat();
        let output = run("metasrv", &arguments);
        assert_eq!(output.status.code(), Some(64), "{command:?}: {}", text(&output.stderr));
        let said = text(&output.stderr);
        for part in ["heartbeat-intervall", "heartbeat-interval", "etcd-lease-ttl", "region-lease"] {
            assert!(said.contains(part), "{command:?} does not mention {part}:\n{said}");
        }
    }
}

/// Goal: effective values are shown with their sources, flag before environment before file before default.
/// Method: one setting from each.
#[test]
fn the_configuration_is_shown_with_its_sources() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("metasrv.toml");
    std::fs::write(&file, "name = \"from-file\"\nregion-lease = \"7s\"\nprefix = \"/file\"\n").unwrap();
    let output = Command::new(binary("metasrv"))
        .args(["config", "show", "--config", &file.display().to_string(), "--prefix", "/flag"])
        .args(["--etcd-endpoints", "http://127.0.0.1:2379"])
        .env("METASRV_REGION_LEASE", "9s")
        .env("METASRV_PREFIX", "/environment")
        .output()
        .unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown} {}", text(&output.stderr));
    for (setting, value) in
        [("name", "from-file"), ("region-lease", "9s"), ("prefix", "/flag"), ("heartbeat-interval", "1s")]
    {
        let line = shown.lines().find(|line| line.trim_start().starts_with(setting));
        assert!(line.is_some_and(|line| line.contains(value)), "{setting} is not {value}:\n{shown}");
    }
}

/// Goal: a replica ends well when told to, and at once when told twice, also where etcd does not answer.
/// Method: SIGTERM with etcd there; then etcd is paused and SIGTERM comes twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_ends_when_told_to_and_at_once_when_told_twice() {
    let mut cluster = Cluster::builder().start().await;
    assert!(cluster.replicas[0].terminate(LONG).await.success());
    cluster.start_replica(0);
    cluster.leader_after(1).await;
    cluster.etcd.as_ref().unwrap().pause_member(0);
    let mut process = cluster.replicas[0].process.take().unwrap();
    process.signal(Signal::TERM);
    process.signal(Signal::INT);
    // Two signals of one kind may be merged by the kernel until the first was taken.
    eventually(Duration::from_secs(5), "it ends", async || {
        if !process.is_running() {
            return Ok(());
        }
        process.signal(Signal::TERM);
        Err("it runs")
    })
    .await;
    cluster.etcd.as_ref().unwrap().resume_member(0);
}

/// Goal: a replica that is told to end ends well and in time also where etcd does not answer: its lease expires by
/// itself. Method: etcd is stopped in its tracks, under a streaming node; then the leader gets one SIGTERM.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_told_to_end_without_etcd_ends_in_time() {
    let mut cluster = Cluster::builder().start().await;
    let mut node = FakeNode::new(Identity::datanode(1));
    node.connect(&cluster.replicas[0].addr()).await.unwrap();
    cluster.etcd.as_ref().unwrap().pause_member(0);
    node.beat().await.unwrap();
    let status = cluster.replicas[0].terminate(Duration::from_secs(12)).await;
    assert!(status.success(), "{status}");
    cluster.etcd.as_ref().unwrap().resume_member(0);
    cluster.start_replica(0);
    assert_eq!(cluster.leader_after(1).await.term, 2);
}

/// Goal: clients that keep calls open do not keep a replica from ending well. Method: one watches the health service,
/// one has opened a heartbeat stream and said nothing; then the replica is told to end.
#[tokio::test(flavor = "multi_thread")]
async fn open_calls_do_not_keep_a_replica_from_ending_well() {
    let mut cluster = Cluster::builder().etcd(0).start().await;
    let addr = cluster.replicas[0].addr();
    let request = HealthCheckRequest { service: String::new() };
    let mut watch = HealthClient::new(channel(&addr)).watch(request).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    let silence = tokio_stream::pending::<metasrv_proto::meta::HeartbeatRequest>();
    let silent = cluster.replicas[0].heartbeat().heartbeat(silence).await.unwrap();
    assert!(cluster.replicas[0].terminate(LONG).await.success());
    drop((watch, silent));
}

/// Goal: a port in use is a clear error. Method: a second replica on the ports of the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_a_clear_error() {
    let cluster = Cluster::builder().etcd(0).start().await;
    let taken = cluster.replicas[0].addr();
    let directory = cluster.directory().join("other").display().to_string();
    let arguments = ["serve", "--grpc-addr", &taken, "--embedded", &directory].map(str::to_owned);
    let http = ["--http-addr".to_owned(), format!("127.0.0.1:{}", free_port())];
    let program = binary("metasrv");
    let mut second =
        Process::start("second", &program, arguments.into_iter().chain(http), cluster.directory());
    let status = second.ended(LONG).await;
    assert!(!status.success());
    assert!(second.log().contains(&taken) && second.log().contains("grpc-addr"), "{}", second.log());
}

/// Goal: gRPC probes tell the leader from a follower, so that a load balancer can send nodes to the leader alone.
/// Method: the standard health service of both is asked for each of its services, and for one that is not there.
#[tokio::test(flavor = "multi_thread")]
async fn grpc_health_tells_the_leader_from_a_follower() {
    let cluster = Cluster::builder().replicas(2).start().await;
    let leader = cluster.leader().await;
    for (index, replica) in cluster.replicas.iter().enumerate() {
        let leads = if index == leader.replica { ServingStatus::Serving } else { ServingStatus::NotServing };
        let expected = [
            ("", ServingStatus::Serving),
            ("greptime.v1.meta.Heartbeat", leads),
            ("metasrv.v1.Admin", ServingStatus::Serving),
        ];
        for (service, status) in expected {
            let what = format!("{} says {status:?} of {service:?}", replica.name);
            eventually(LONG, &what, async || {
                let request = HealthCheckRequest { service: service.to_owned() };
                let answer = HealthClient::new(channel(&replica.addr())).check(request).await;
                let answer = answer.map_err(|status| status.to_string())?.into_inner().status();
                if answer == status { Ok(()) } else { Err(format!("{answer:?}")) }
            })
            .await;
        }
        let request = HealthCheckRequest { service: "nobody.Knows".to_owned() };
        let unknown = HealthClient::new(channel(&replica.addr())).check(request).await.expect_err("unknown");
        assert_eq!(unknown.code(), tonic::Code::NotFound);
    }
}

/// Goal: tools without our .proto files can call us. Method: reflection lists the services and has their descriptors.
#[tokio::test(flavor = "multi_thread")]
async fn grpc_reflection_describes_every_service() {
    let cluster = Cluster::builder().etcd(0).start().await;
    let mut client = ServerReflectionClient::new(channel(&cluster.replicas[0].addr()));
    let mut ask = async |request: MessageRequest| {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
        let answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
        answers.into_inner().message().await.unwrap().unwrap().message_response.unwrap()
    };
    let MessageResponse::ListServicesResponse(listed) =
        ask(MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list of services")
    };
    let listed: Vec<String> = listed.service.into_iter().map(|service| service.name).collect();
    for service in ["greptime.v1.meta.Heartbeat", "metasrv.v1.Admin", "grpc.health.v1.Health"] {
        assert!(listed.iter().any(|listed| listed == service), "{service} is not among {listed:?}");
        let described = ask(MessageRequest::FileContainingSymbol(service.to_owned())).await;
        let MessageResponse::FileDescriptorResponse(files) = described else {
            panic!("{service}: {described:?}")
        };
        assert!(!files.file_descriptor_proto.is_empty(), "{service} is not described");
    }
}
