//! TLS as an operator meets it: real processes, real certificates, and every way of not being let in.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::time::{Duration, SystemTime};

use metasrv::certificates::{Authority, Wanted};
use metasrv_proto::admin::supervisor_client::SupervisorClient;
use metasrv_proto::admin::{CertifyEndRequest, certify_end_request::How};
use metasrv_proto::meta::{HeartbeatRequest, Peer, RequestHeader, Role};
use metasrv_tests::binaries::binary;
use metasrv_tests::metactl::{command, run};
use metasrv_tests::node::HeartbeatStream;
use metasrv_tests::secured::{Secured, certificates, channel, files, status};
use metasrv_tests::wait::eventually;
use metasrv_tls::{ClientTls, TlsFiles};
use tonic::Code;

const SOON: Duration = Duration::from_secs(20);

/// Signs `name` anew with the cluster's own authority, for a time that is over.
fn expire(secured: &Secured, name: &str, uris: &[String]) {
    let directory = secured.directory().join("certificates");
    let authority = Authority::of_key(&std::fs::read_to_string(directory.join("ca.key")).unwrap()).unwrap();
    let ago = |hours: u64| SystemTime::now() - Duration::from_secs(hours * 3_600);
    let wanted = Wanted { name, hosts: &["127.0.0.1".to_owned()], uris, valid: ago(3)..ago(1) };
    let issued = authority.issue(&wanted).unwrap();
    for (ending, text) in [("key", issued.key), ("pem", issued.certificate)] {
        let beside = directory.join("beside");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, directory.join(format!("{name}.{ending}"))).unwrap();
    }
}

fn client(files: TlsFiles) -> Option<ClientTls> {
    Some(ClientTls::new(files).unwrap())
}

/// Goal: the whole system over TLS, with certificates on both sides. Method: three replicas on an etcd that wants
/// certificates, two datanodes; an operator creates regions and moves leadership past a replica that has to stand back;
/// pages of HTTP with a certificate and without; the health command.
#[tokio::test]
async fn with_certificates_everything_works() {
    let secured = Secured::start(3, 2).await;
    let (leader, term) = secured.leader().await;
    let created = secured.metactl("admin", "region create --count 4 --wait --timeout 30s").await;
    assert_eq!(created.code, 0, "{created:?}");
    let healthy = secured.metactl("admin", "wait --for healthy --timeout 30s").await;
    assert_eq!(healthy.code, 0, "{healthy:?}");
    let members = secured.metactl("admin", "member list -o json").await.rows();
    let last = members.last().unwrap()["name"].as_str().unwrap().to_owned();
    let moved = secured.metactl("admin", &format!("leader transfer --to {last} --reason test")).await;
    assert_eq!(moved.code, 0, "{moved:?}");
    let (next, next_term) = secured.leader().await;
    assert!(next != leader && next_term > term, "{leader} {term}, then {next} {next_term}");
    let healthy = secured.metactl("admin", "wait --for healthy --timeout 30s").await;
    assert_eq!(healthy.code, 0, "{healthy:?}");

    for path in ["/livez", "/readyz"] {
        let page = secured.page(0, None, path).await.unwrap();
        assert!(page.starts_with("HTTP/1.1 200 "), "{path} without a certificate: {page}");
    }
    let page = secured.page(0, None, "/metrics").await.unwrap();
    assert!(page.starts_with("HTTP/1.1 403 "), "{page}");
    assert!(secured.metric(0, "metasrv_tls_certificate_expiry_timestamp_seconds").await > 1.7e9);
    let own = secured.files("replica").own.unwrap();
    let health = std::process::Command::new(binary("metasrv"))
        .args(["health", "--ready", "--http-addr", &format!("127.0.0.1:{}", secured.replicas[0].http)])
        .arg("--tls-ca")
        .arg(secured.files("replica").ca)
        .arg("--tls-certificate")
        .arg(own.certificate)
        .arg("--tls-key")
        .arg(own.key)
        .output()
        .unwrap();
    assert!(health.status.success(), "{health:?}");
}

/// Goal: nobody comes in without a right certificate, is told why, and the replica says so. Method: a call in each wrong way;
/// its error, the metric by its reason, the log. And the other way round: a client does not talk to a stranger.
#[tokio::test]
async fn whoever_has_no_right_certificate_is_refused_and_the_log_says_why() {
    let secured = Secured::start(1, 0).await;
    certificates(secured.directory(), "strangers").await;
    let strangers = files(&secured.directory().join("strangers"), "admin");
    let ours = secured.files("admin");
    expire(&secured, "late", &["spiffe://x/metasrv/admin".to_owned()]);
    let wrong = [
        ("not_tls", None),
        ("no_certificate", client(TlsFiles { own: None, ..ours.clone() })),
        ("unknown_issuer", client(TlsFiles { ca: ours.ca.clone(), own: strangers.own.clone() })),
        ("expired", client(secured.files("late"))),
    ];
    let port = secured.replicas[0].grpc;
    for (reason, tls) in wrong {
        let why = status(channel(port, tls)).await.expect_err(reason);
        let series = format!("metasrv_tls_refused_total{{reason=\"{reason}\"}}");
        eventually(SOON, &format!("{reason} is counted; the caller heard: {why}"), async || {
            if secured.metric(0, &series).await >= 1.0 { Ok(()) } else { Err("it is not") }
        })
        .await;
    }
    let log = secured.replicas[0].process.log();
    assert!(log.contains("refused by its certificate") && log.contains("not_tls"), "{log}");
    let stranger = client(TlsFiles { ca: strangers.ca, own: ours.own.clone() });
    let why = status(channel(port, stranger)).await.unwrap_err();
    assert!(why.contains("UnknownIssuer"), "{why}");
    assert!(status(channel(port, client(ours))).await.is_ok(), "the right certificate is still welcome");
    // The same by the operator's tool: it ends soon, with a code of its own.
    let mut plain = command("status --timeout 5s");
    plain.env("METACTL_METASRV", secured.addrs());
    assert_ne!(run(plain).await.code, 0);
}

/// Goal: a certificate is for what it names. Method: the stream of a node, the certificate of a node's end, and calls of operators,
/// with the certificates of others; a real datanode with another one's certificate never appears.
#[tokio::test]
async fn a_certificate_is_for_what_it_names_and_nothing_else() {
    let secured = Secured::start(1, 1).await;
    let port = secured.replicas[0].grpc;
    let as_node = async |certificate: &str, role: Role, id: u64| {
        let header = RequestHeader {
            protocol_version: 1,
            role: role as i32,
            member_id: id,
            ..RequestHeader::default()
        };
        let request = HeartbeatRequest {
            header: Some(header),
            peer: Some(Peer { id, addr: "127.0.0.1:1".to_owned() }),
            ..HeartbeatRequest::default()
        };
        let opened =
            HeartbeatStream::open_on(channel(port, client(secured.files(certificate))), request).await;
        opened.unwrap().next().await.err().map(|status| status.code())
    };
    assert_eq!(as_node("datanode-2", Role::Datanode, 2).await, None, "its own");
    assert_eq!(as_node("frontend", Role::Frontend, 0).await, None, "its own");
    assert_eq!(as_node("datanode-1", Role::Datanode, 2).await, Some(Code::PermissionDenied));
    assert_eq!(as_node("datanode-1", Role::Frontend, 0).await, Some(Code::PermissionDenied));
    assert_eq!(as_node("admin", Role::Datanode, 2).await, Some(Code::PermissionDenied));
    assert_eq!(as_node("replica", Role::Datanode, 2).await, Some(Code::PermissionDenied));

    let end = CertifyEndRequest {
        node_id: 2,
        node_epoch: 1,
        incarnation_nonce: 1,
        how: Some(How::ExitCode(0)),
        ..CertifyEndRequest::default()
    };
    let mut supervisor = SupervisorClient::new(channel(port, client(secured.files("datanode-1"))));
    assert_eq!(supervisor.certify_end(end).await.unwrap_err().code(), Code::PermissionDenied);

    for certificate in ["datanode-1", "frontend", "replica"] {
        let refused = secured.metactl(certificate, "region create --count 1 --timeout 5s").await;
        assert_ne!(refused.code, 0, "{certificate}: {refused:?}");
        assert!(refused.said.contains("this takes admin"), "{certificate}: {refused:?}");
    }
    let impostor = secured.datanode(3, "datanode-1");
    eventually(SOON, "the impostor is refused", async || {
        let log = secured.replicas[0].process.log();
        if log.contains("datanode/0/3") { Ok(()) } else { Err(impostor.log()) }
    })
    .await;
    let nodes = secured.metactl("admin", "node list -o json").await.rows();
    assert!(!nodes.iter().any(|node| node["node_id"] == 3), "{nodes:?}");
}

/// Goal: an expired certificate is replaced without a restart and without a lost lease. Method: the replicas' certificate is
/// replaced by an expired one while regions are written to, until new connections fail for it; then by a valid one, until they
/// succeed. All the while, by a connection that was open before, the same leader leads and every region is writable.
#[tokio::test]
async fn new_certificates_are_used_without_a_restart_or_a_lost_lease() {
    let secured = Secured::start(2, 2).await;
    let created = secured.metactl("admin", "region create --count 4 --wait --timeout 30s").await;
    assert_eq!(created.code, 0, "{created:?}");
    let (leader, term) = secured.leader().await;
    let port = secured.replicas[leader].grpc;
    let open = channel(port, client(secured.files("admin")));
    let undisturbed = async || {
        assert_eq!(status(open.clone()).await, Ok(("leader".to_owned(), term)));
        let mut admin = metasrv_proto::admin::admin_client::AdminClient::new(open.clone());
        let mut parts = admin
            .list_regions(metasrv_proto::admin::ListRegionsRequest::default())
            .await
            .unwrap()
            .into_inner();
        while let Some(part) = parts.message().await.unwrap() {
            for region in part.regions {
                assert!(region.writable, "{region:?}");
            }
        }
    };
    undisturbed().await;
    expire(&secured, "replica", &["spiffe://x/metasrv/replica".to_owned()]);
    eventually(SOON, "new connections see the expired certificate", async || {
        undisturbed().await;
        match status(channel(port, client(secured.files("admin")))).await {
            Err(why) if why.contains("Expired") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    certificates(secured.directory(), "certificates").await;
    eventually(SOON, "new connections see the new certificate", async || {
        undisturbed().await;
        status(channel(port, client(secured.files("admin")))).await
    })
    .await;
    let healthy = secured.metactl("admin", "wait --for healthy --timeout 30s").await;
    assert_eq!(healthy.code, 0, "{healthy:?}");
    undisturbed().await;
    for replica in &secured.replicas {
        assert!(replica.process.log().contains("new certificates are in use"), "{}", replica.process.log());
    }
}

/// Goal: files that do not fit are a wrong configuration, said before a port is bound. Method: `config check` with each.
#[tokio::test]
async fn certificates_that_cannot_be_used_are_a_wrong_configuration() {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path(), "one").await;
    certificates(directory.path(), "other").await;
    let (one, other) = (directory.path().join("one"), directory.path().join("other"));
    let check = |endpoints: &str, more: &[(&str, &Path)]| {
        let mut command = std::process::Command::new(binary("metasrv"));
        command.args(["config", "check", "--etcd-endpoints", endpoints]);
        more.iter().for_each(|(flag, path)| {
            command.arg(flag).arg(path);
        });
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (ca, pem, key) = (one.join("ca.pem"), one.join("replica.pem"), one.join("replica.key"));
    let (plain, secured) = ("http://a:1", "https://a:1");
    let right = [("--tls-ca", ca.as_path()), ("--tls-certificate", &pem), ("--tls-key", &key)];
    assert_eq!(check(plain, &right), (Some(0), String::new()));
    assert_eq!(check(secured, &[("--etcd-tls-ca", &ca)]), (Some(0), String::new()));
    let none = one.join("none.pem");
    let others_key = other.join("replica.key");
    type Flags<'a> = &'a [(&'a str, &'a Path)];
    let wrong: [(&str, Flags<'_>, &str); 7] = [
        (plain, &right[..1], "tls-certificate: must be set"),
        (plain, &right[..2], "tls-key: must be set"),
        (plain, &right[1..], "tls-ca: must be set"),
        (plain, &[right[0], ("--tls-certificate", &none), right[2]], "none.pem"),
        (plain, &[right[0], right[1], ("--tls-key", &others_key)], "tls-certificate"),
        (secured, &right, "etcd-tls-ca"),
        ("https://a:1,http://b:1", &[("--etcd-tls-ca", &ca)], "must all begin with https://"),
    ];
    for (endpoints, more, said) in wrong {
        let (code, why) = check(endpoints, more);
        assert_eq!(code, Some(64), "{more:?}: {why}");
        assert!(why.contains(said), "{said:?} is not in {why}");
    }
}
