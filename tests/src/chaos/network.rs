//! A network of namespaces: one for each process, a pair of virtual cables from each to one bridge.
//!
//! ```text
//!   root namespace (this process)      PREFIX-hub: the bridge        PREFIX-m1, PREFIX-e1, …
//!   198.18.N.1 on mchaosPID ────────── root ─┬─ m1 ───────────────── eth0 198.18.N.11
//!                                            ├─ e1 ───────────────── eth0 198.18.N.21
//! ```
//!
//! The bridge lives in a namespace of its own: a machine that runs Docker filters what its own bridges carry. The
//! addresses are of the range that is set aside for measurements (RFC 2544). Names carry this process's id, so that two
//! runs do not meet, and a later run can tell what a crashed one left behind.

use std::process::Command;

use crate::place::Place;

/// Every namespace of ours begins so.
const PREFIX: &str = "mchaos";

/// Which packets a namespace drops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Those that come in.
    In,
    /// Those that go out.
    Out,
    /// All of them.
    Both,
}

/// The network of one run. Gone when this is dropped.
pub struct Network {
    prefix: String,
    cable: String,
    subnet: u32,
    /// Namespaces that were made, in their order.
    made: Vec<String>,
}

/// What the command cannot do without, each with how to get it.
///
/// # Errors
/// One line for each thing that is missing.
pub fn check_tools() -> Result<(), String> {
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("root: network namespaces are made by root only (run it with sudo)".to_owned());
    }
    let found = |program: &str, version: &str| {
        Command::new(program).arg(version).output().is_ok_and(|output| output.status.success())
    };
    for (program, version, package) in [
        ("ip", "-V", "apt-get install iproute2"),
        ("iptables", "--version", "apt-get install iptables"),
        ("etcd", "--version", "make etcd"),
    ] {
        if !found(program, version) {
            missing.push(format!("{program} ({package})"));
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(format!("missing: {}", missing.join("; "))) }
}

/// Removes what runs left behind whose process is gone.
pub fn remove_leftovers() {
    let listed = Command::new("ip").args(["netns", "list"]).output();
    let Ok(output) = listed else { return };
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let Some(pid) = owner(name) else { continue };
        if !std::path::Path::new(&format!("/proc/{pid}")).exists() {
            eprintln!("removing {name}, which a run that is gone left behind");
            // Another run may have been faster.
            let _ = run("ip", &["netns", "del", name]);
        }
    }
}

/// The id of the process that made a namespace of ours.
pub fn owner(namespace: &str) -> Option<u32> {
    namespace.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

impl Network {
    /// Makes the bridge and this process's own connection to it.
    ///
    /// # Errors
    /// What the system refused, with the command that it refused.
    pub fn new() -> Result<Network, String> {
        let pid = std::process::id();
        let prefix = format!("{PREFIX}{pid}");
        let mut network = Network { cable: prefix.clone(), subnet: pid % 256, prefix, made: Vec::new() };
        let hub = network.namespace("hub");
        network.make(&hub)?;
        ip(&format!("-n {hub} link add br0 type bridge"))?;
        ip(&format!("-n {hub} link set br0 up"))?;
        let cable = network.cable.clone();
        ip(&format!("link add {cable} type veth peer name root netns {hub}"))?;
        ip(&format!("-n {hub} link set root master br0 up"))?;
        ip(&format!("address add {}/24 dev {cable}", network.address(1)))?;
        ip(&format!("link set {cable} up"))?;
        Ok(network)
    }

    /// Makes a namespace with an address, connected to the bridge.
    ///
    /// # Errors
    /// As above.
    pub fn place(&mut self, name: &str, host: u8) -> Result<Place, String> {
        let (hub, namespace) = (self.namespace("hub"), self.namespace(name));
        self.make(&namespace)?;
        ip(&format!("-n {namespace} link set lo up"))?;
        ip(&format!("-n {namespace} link add eth0 type veth peer name {name} netns {hub}"))?;
        ip(&format!("-n {hub} link set {name} master br0 up"))?;
        let host = self.address(host);
        ip(&format!("-n {namespace} address add {host}/24 dev eth0"))?;
        ip(&format!("-n {namespace} link set eth0 up"))?;
        Ok(Place { host, namespace: Some(namespace) })
    }

    /// Drops packets of this place from now on. Nobody is told, as by a broken switch.
    ///
    /// # Errors
    /// As above.
    pub fn black_hole(&self, place: &Place, direction: Direction) -> Result<(), String> {
        let chains: &[&str] = match direction {
            Direction::In => &["INPUT"],
            Direction::Out => &["OUTPUT"],
            Direction::Both => &["INPUT", "OUTPUT"],
        };
        for chain in chains {
            let interface = if *chain == "INPUT" { "-i" } else { "-o" };
            filter(place, &["-A", chain, interface, "eth0", "-j", "DROP"])?;
        }
        Ok(())
    }

    /// Drops nothing of this place any more.
    ///
    /// # Errors
    /// As above.
    pub fn heal(&self, place: &Place) -> Result<(), String> {
        filter(place, &["-F"])
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn address(&self, host: u8) -> String {
        format!("198.18.{}.{host}", self.subnet)
    }

    fn make(&mut self, namespace: &str) -> Result<(), String> {
        ip(&format!("netns add {namespace}"))?;
        self.made.push(namespace.to_owned());
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The cable's other end may have gone with its namespace already.
        let _ = run("ip", &["link", "del", &self.cable]);
        for namespace in self.made.iter().rev() {
            if let Err(error) = run("ip", &["netns", "del", namespace]) {
                eprintln!("{namespace} stays behind: {error}");
            }
        }
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    run("ip", &arguments.split(' ').collect::<Vec<_>>())
}

/// Changes the packet filter inside of a place's namespace.
fn filter(place: &Place, arguments: &[&str]) -> Result<(), String> {
    let namespace = place.namespace.as_deref().ok_or("this place has no namespace of its own")?;
    let mut words = vec!["netns", "exec", namespace, "iptables", "-w"];
    words.extend(arguments);
    run("ip", &words)
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program} does not run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}", arguments.join(" "), why.trim()))
}
