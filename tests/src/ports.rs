//! Loopback ports for peers.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU32, Ordering},
};

/// Below Linux's ephemeral range, so that no outgoing connection takes the port of a peer that is down for a restart.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

/// A TCP port on 127.0.0.1 that nobody listens on. Never handed out twice by one process; processes start at different places.
///
/// # Panics
/// When every port between 20000 and 32000 is taken.
pub fn free_port() -> u16 {
    static USED: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(257);
    for _ in 0..COUNT {
        let step = USED.fetch_add(1, Ordering::Relaxed);
        let port = (FIRST + start.wrapping_add(step) % COUNT) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT)
}
