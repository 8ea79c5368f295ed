//! promtool, and a Prometheus of one's own: those of the PATH, or what tools/install-promtool.sh unpacks.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use crate::binaries::target_directory;
use crate::manifests::tools::{output, top};
use crate::ports::free_port;
use crate::process::Process;
use crate::replica::http_exchange;

/// `promtool` or `prometheus`.
pub fn program(name: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let directory = target_directory().join("promtool");
        let lock = std::fs::File::create(target_directory().join("promtool.lock"));
        let lock = lock.expect("the target directory is writable");
        // Tests are processes of their own: one unpacks, the others wait for it.
        flock(&lock, FlockOperation::LockExclusive).expect("a local file can be locked");
        let status = Command::new("sh").arg(top().join("tools/install-promtool.sh")).arg(&directory).status();
        assert!(status.expect("sh runs").success(), "there is no promtool");
        directory.join("bin")
    });
    let unpacked = directory.join(name);
    if unpacked.exists() { unpacked } else { name.into() }
}

/// Runs promtool with this input; returns what it printed.
///
/// # Errors
/// It found something wrong; with what it printed.
pub fn promtool(arguments: &[&str], input: &str) -> Result<String, String> {
    output(Command::new(program("promtool")).args(arguments), input)
}

/// A Prometheus that scrapes some replicas once a second.
pub struct Prometheus {
    addr: String,
    _process: Process,
}

impl Prometheus {
    /// Starts it with our rules, as the job `metasrv`; its data is in this directory.
    pub fn start(targets: &[String], directory: &Path) -> Prometheus {
        let mut settings = "global: {scrape_interval: 1s, evaluation_interval: 1s}\n".to_owned();
        let rules = top().join("deploy/prometheus/metasrv.rules.yaml");
        let targets = serde_json::to_string(targets).expect("texts are JSON");
        let _ = write!(
            settings,
            "rule_files: [{:?}]\nscrape_configs:\n  - job_name: metasrv\n    static_configs: [{{targets: {targets}}}]\n",
            rules.display().to_string()
        );
        let file = directory.join("prometheus.yml");
        std::fs::write(&file, settings).expect("the directory is writable");
        let addr = format!("127.0.0.1:{}", free_port());
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", directory.join("prometheus.data").display()),
            format!("--web.listen-address={addr}"),
        ];
        let process = Process::start("prometheus", &program("prometheus"), arguments, directory);
        Prometheus { addr, _process: process }
    }

    /// What it answers to this query now: a value for each series.
    ///
    /// # Errors
    /// It does not answer, or not with numbers.
    pub async fn query(&self, query: &str) -> Result<Vec<f64>, String> {
        let path = format!("/api/v1/query?query={}", escaped(query));
        let page = http_exchange(&self.addr, "GET", &path, "").await?;
        let body = page.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        // Short answers come whole; long ones in chunks, each on a line after its length.
        let json = body.lines().find(|line| line.starts_with('{')).unwrap_or_default();
        let answer: Value =
            serde_json::from_str(json).map_err(|error| format!("{query}: {error}: {page}"))?;
        let series = answer.pointer("/data/result").and_then(Value::as_array);
        let series = series.ok_or_else(|| format!("{query}: {answer}"))?;
        series
            .iter()
            .map(|one| {
                let value =
                    one.pointer("/value/1").and_then(Value::as_str).and_then(|text| text.parse().ok());
                value.ok_or_else(|| format!("{query}: {one} has no number"))
            })
            .collect()
    }
}

fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() {
            escaped.push(char::from(byte));
        } else {
            // Writing to a text does not fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}
