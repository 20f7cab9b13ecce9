//! Loopback addresses: one for each pod, never given twice by this process.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// A storage node's control port; an address where it is taken belongs to another test process.
const CONTROL_PORT: u16 = 5680;

/// Addresses that one process may hand out: 127.16.0.1 to 127.239.255.254.
const FIRST: u32 = 0x7f10_0001;
const COUNT: u32 = 0x00df_fffe;

static GIVEN: AtomicU32 = AtomicU32::new(0);

/// An address that nothing listens on.
pub fn next_free() -> Ipv4Addr {
    // Processes that run side by side begin far apart.
    let begin = std::process::id().wrapping_mul(2_654_435_761) % COUNT;
    loop {
        let number = GIVEN.fetch_add(1, Ordering::Relaxed);
        let address = Ipv4Addr::from(FIRST + (begin + number) % COUNT);
        let [.., last] = address.octets();
        if last == 0 || last == 255 {
            continue;
        }
        if TcpListener::bind((address, CONTROL_PORT)).is_ok() {
            return address;
        }
    }
}
