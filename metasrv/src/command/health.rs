//! `metasrv health`: asks the replica on this machine, as an image's health check does that has no shell.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use axum::http::{Request, StatusCode, header};
use clap::Args;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use metasrv_tls::{ClientTls, TlsFiles};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::{FAILED, USAGE};
use crate::config::loopback_of;
use crate::config::setting::HttpFlags;
use crate::config::source::{self, Settings};

/// The checks of a replica fit into it many times over.
const LARGEST_ANSWER: usize = 64 * 1024;

/// What to ask, and how long to wait.
#[derive(Args)]
pub struct Arguments {
    /// Ask whether it is ready to be sent requests, not only whether it is live
    #[arg(long)]
    ready: bool,
    /// How long to wait for the answer
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    flags: HttpFlags,
}

/// Asks once: exit code 0 if the answer is yes, else 1 with the reason on stderr.
pub async fn run(arguments: Arguments) -> ExitCode {
    let (settings, _) = source::resolve(&arguments.flags.0, std::env::vars_os());
    let addr = settings.get("http-addr").map(|value| value.text.parse::<SocketAddr>());
    let Some(Ok(addr)) = addr else {
        eprintln!("error: {}: must be IP:PORT, such as 127.0.0.1:3003", settings.subject("http-addr"));
        return ExitCode::from(USAGE);
    };
    let addr = loopback_of(addr);
    let tls = match secured(&settings) {
        Ok(tls) => tls,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::from(USAGE);
        }
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let path = if arguments.ready { "/readyz?verbose" } else { "/livez" };
    let answer = match tokio::time::timeout(arguments.timeout, ask(addr, path, tls)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {}", humantime::format_duration(arguments.timeout))),
    };
    match answer {
        Ok((StatusCode::OK, body)) => {
            print!("{body}");
            ExitCode::SUCCESS
        }
        Ok((code, body)) => {
            eprintln!("error: {scheme}://{addr}{path} answers {code}:\n{}", body.trim_end());
            ExitCode::from(FAILED)
        }
        Err(error) => {
            eprintln!(
                "error: {scheme}://{addr}{path}: {error}; does the replica run, and is this its --http-addr?"
            );
            ExitCode::from(FAILED)
        }
    }
}

/// How hands are shaken on the HTTP port, by the replica's own settings: its certificate has the name that others use.
fn secured(settings: &Settings) -> Result<Option<ClientTls>, String> {
    let text =
        |name: &str| settings.get(name).map(|value| value.text.clone()).filter(|text| !text.is_empty());
    let path = |name: &str| text(name).map(PathBuf::from);
    if text("tls-http").as_deref() == Some("off") {
        return Ok(None);
    }
    let files = TlsFiles::of(path("tls-ca"), path("tls-certificate"), path("tls-key"))
        .map_err(|_| "tls-ca, tls-certificate and tls-key must be set together".to_owned())?;
    let Some(files) = files else { return Ok(None) };
    let advertised = text("advertise-addr").or_else(|| text("grpc-addr")).unwrap_or_default();
    let host = advertised.rsplit_once(':').map_or(advertised.as_str(), |(host, _)| host);
    let tls = ClientTls::with_protocol(files, b"http/1.1").map_err(|error| error.to_string())?;
    Ok(Some(tls.expecting(host)))
}

async fn ask(addr: SocketAddr, path: &str, tls: Option<ClientTls>) -> Result<(StatusCode, String), String> {
    let stream = TcpStream::connect(addr).await.map_err(|error| error.to_string())?;
    match tls {
        None => exchange(addr, path, stream).await,
        Some(tls) => {
            let stream = tls.connect(&addr.ip().to_string(), stream).await;
            exchange(addr, path, stream.map_err(|error| error.to_string())?).await
        }
    }
}

async fn exchange<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    addr: SocketAddr,
    path: &str,
    stream: IO,
) -> Result<(StatusCode, String), String> {
    let (mut sender, connection) =
        http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let request = Request::get(path)
        .header(header::HOST, addr.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    // The connection only moves while it is polled, and ends with the answer.
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let code = response.status();
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        Ok((code, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::pin!(connection);
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The answer may be complete though the connection is gone.
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error.to_string()),
        },
    }
}
