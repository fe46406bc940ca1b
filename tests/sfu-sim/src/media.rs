//! The media thread: one UDP socket for all sessions, as the service has one address.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use loadgen::socket;

use crate::sfu::Sfu;

/// The longest sleep: HTTP calls change sessions behind this thread's back.
const TICK: Duration = Duration::from_millis(5);
const MAX_DATAGRAM_BYTES: usize = 2048;
/// How many datagrams are taken before those that are due go out.
const BURST: usize = 256;

pub(crate) fn run(udp: &UdpSocket, sfu: &Sfu) {
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    while !sfu.is_stopping() {
        let wake = match step(udp, sfu, &mut buffer) {
            Ok(wake) => wake,
            Err(error) => {
                eprintln!("sfu-sim: {error}");
                return;
            }
        };
        if let Err(error) = socket::wait_readable(&[udp], wake) {
            eprintln!("sfu-sim: {error}");
            return;
        }
    }
}

fn step(udp: &UdpSocket, sfu: &Sfu, buffer: &mut [u8]) -> std::io::Result<Instant> {
    let mut state = sfu.lock();
    for _ in 0..BURST {
        let Some((length, from)) = socket::receive(udp, buffer)? else {
            break;
        };
        let datagram = buffer.get(..length).unwrap_or_default();
        state.handle_datagram(datagram, from, Instant::now());
    }
    let now = Instant::now();
    if state.handle_timeout(now) {
        sfu.notify();
    }
    while let Some(transmit) = state.poll_transmit() {
        socket::send(udp, &transmit)?;
    }
    let latest = now + TICK;
    Ok(state.poll_timeout().map_or(latest, |due| due.min(latest)))
}
