//! Ports that are free and stay free until the process they are meant for binds them.
//!
//! Asking the kernel for a free port and closing it again is not enough: until a child binds it, another test may
//! get the same one, or a connection that goes out may use it. So ports come from below the range that the kernel
//! gives to outgoing connections, and each one is held by a lock on a file that ends with this test's process.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

use rand::Rng as _;
use rustix::fs::{FlockOperation, flock};

/// Linux gives ports from 32768 to outgoing connections.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port on 127.0.0.1 that is this process's until it ends.
pub fn free_port() -> u16 {
    let directory = std::env::temp_dir().join("metasrv-tests-ports");
    std::fs::create_dir_all(&directory).expect("the temporary directory is writable");
    for _ in 0..10_000 {
        let port = rand::rng().random_range(RANGE);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(directory.join(port.to_string()))
            .expect("the temporary directory is writable");
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err() {
            continue;
        }
        HELD.lock().expect("no holder panics").push(file);
        return port;
    }
    panic!("no free port found in {RANGE:?}");
}
