//! A UDP forwarder with a bad network inside, to be put between a real browser and a server.
//!
//! Input: datagrams of clients at the listening address; output: the same datagrams to the server from one socket per
//! client, and the server's replies back. The client learns the proxy's address by having the port of the server's ICE
//! candidate replaced in the SDP answer; the server sees a peer-reflexive address. Both directions pass a [`Netem`] of their own. At most [`MAX_CLIENTS`].

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::netem::{Impairments, Netem, NetemStats};
use crate::socket;
use crate::stack::Transmit;

/// Datagrams of further clients are dropped.
pub const MAX_CLIENTS: usize = 64;
const TICK: Duration = Duration::from_millis(50);
const MAX_DATAGRAM_BYTES: usize = 65_536;

pub struct Proxy {
    listen: UdpSocket,
    to: SocketAddr,
    up: Impairments,
    down: Impairments,
    seed: u64,
    clients: Vec<Client>,
}

struct Client {
    address: SocketAddr,
    /// Towards the server.
    upstream: UdpSocket,
    up: Netem<Vec<u8>>,
    down: Netem<Vec<u8>>,
}

impl Proxy {
    /// `up` is what happens on the way to the server `to`, `down` on the way back.
    pub fn bind(
        listen: SocketAddr,
        to: SocketAddr,
        up: Impairments,
        down: Impairments,
        seed: u64,
    ) -> io::Result<Proxy> {
        let listen = UdpSocket::bind(listen)?;
        listen.set_nonblocking(true)?;
        Ok(Proxy { listen, to, up, down, seed, clients: Vec::new() })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listen.local_addr()
    }

    /// Forwards until `stop` is set; returns what happened to all clients' datagrams, (up, down).
    pub fn run(mut self, stop: &Arc<AtomicBool>) -> io::Result<(NetemStats, NetemStats)> {
        let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
        while !stop.load(Ordering::Relaxed) {
            while let Some((length, from)) = socket::receive(&self.listen, &mut buffer)? {
                if let Some(client) = self.client(from)? {
                    client.up.push(buffer[..length].to_vec(), length, Instant::now());
                }
            }
            let now = Instant::now();
            let mut wake = now + TICK;
            for client in &mut self.clients {
                wake = wake.min(client.step(&self.listen, self.to, &mut buffer)?);
            }
            let upstreams = self.clients.iter().map(|client| &client.upstream);
            let sockets: Vec<&UdpSocket> = std::iter::once(&self.listen).chain(upstreams).collect();
            socket::wait_readable(&sockets, wake)?;
        }
        let total =
            |which: fn(&Client) -> NetemStats| self.clients.iter().map(which).fold(NetemStats::default(), |a, b| a + b);
        Ok((total(|client| client.up.stats()), total(|client| client.down.stats())))
    }

    fn client(&mut self, address: SocketAddr) -> io::Result<Option<&mut Client>> {
        let known = self.clients.iter().position(|client| client.address == address);
        if let Some(index) = known {
            return Ok(self.clients.get_mut(index));
        }
        if self.clients.len() >= MAX_CLIENTS {
            return Ok(None);
        }
        let upstream = UdpSocket::bind((self.listen.local_addr()?.ip(), 0))?;
        upstream.set_nonblocking(true)?;
        let number = self.clients.len() as u64;
        let (now, seed) = (Instant::now(), self.seed.wrapping_add(number * 2));
        let up = Netem::new(self.up.clone(), seed, now);
        let down = Netem::new(self.down.clone(), seed.wrapping_add(1), now);
        self.clients.push(Client { address, upstream, up, down });
        Ok(self.clients.last_mut())
    }
}

impl Client {
    fn step(&mut self, listen: &UdpSocket, to: SocketAddr, buffer: &mut [u8]) -> io::Result<Instant> {
        while let Some((length, from)) = socket::receive(&self.upstream, buffer)? {
            if from == to {
                self.down.push(buffer[..length].to_vec(), length, Instant::now());
            }
        }
        let now = Instant::now();
        while let Some(datagram) = self.up.poll(now) {
            socket::send(&self.upstream, &Transmit { to, datagram })?;
        }
        while let Some(datagram) = self.down.poll(now) {
            socket::send(listen, &Transmit { to: self.address, datagram })?;
        }
        let timeouts = [self.up.poll_timeout(), self.down.poll_timeout()];
        Ok(timeouts.into_iter().flatten().min().unwrap_or(now + TICK))
    }
}
