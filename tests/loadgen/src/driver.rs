//! The thread that moves guests' media: one poll(2) over all their sockets.
//!
//! Input: guests and commands; output: datagrams on their sockets, statistics for their handles. A command takes effect
//! within [`TICK`]. The thread ends when the driver, all its clones and all handles are gone.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{self, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::clip::TrackKind;
use crate::guest::{Guest, GuestStats};
use crate::hostile::{self, Hostile};
use crate::netem::{Impairments, Netem};
use crate::publisher::NetworkStats;
use crate::replay::{Replay, SentUnit};
use crate::socket;
use crate::stack::Transmit;

/// The longest sleep.
const TICK: Duration = Duration::from_millis(10);
/// The longest datagram that is read.
const MAX_DATAGRAM_BYTES: usize = 2048;

/// A running thread; clones share it.
#[derive(Clone, Debug)]
pub struct Driver {
    orders: mpsc::Sender<Order>,
}

enum Order {
    Add(Box<Seat>),
    Command(SeatId, Box<Command>),
}

/// The address of the shared state tells seats apart.
type SeatId = usize;

pub(crate) enum Command {
    Impair(Box<[Impairments; 2]>),
    Pause {
        kind: TrackKind,
        paused: bool,
    },
    Hostile {
        count: u64,
    },
    End {
        goodbye: bool,
        done: mpsc::Sender<()>,
    },
    /// The handle is gone.
    Forget,
}

/// What a handle can see.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) connected: bool,
    pub(crate) alive: bool,
    /// Each track has ended its last frame after a pause.
    pub(crate) paused: bool,
    pub(crate) stats: GuestStats,
    pub(crate) network: NetworkStats,
    pub(crate) sent: Vec<SentUnit>,
    pub(crate) hostile_sent: u64,
}

/// The publisher's end.
pub(crate) struct Handle {
    orders: mpsc::Sender<Order>,
    shared: Arc<Mutex<Shared>>,
}

impl Driver {
    pub fn start() -> Driver {
        let (orders, incoming) = mpsc::channel();
        thread::Builder::new()
            .name("loadgen".to_owned())
            .spawn(move || run(&incoming))
            .expect("a thread can be started");
        Driver { orders }
    }

    pub(crate) fn add(&self, seat: Seat) -> Handle {
        let shared = Arc::clone(&seat.shared);
        // The thread lives as long as this sender.
        let _ = self.orders.send(Order::Add(Box::new(seat)));
        Handle { orders: self.orders.clone(), shared }
    }
}

impl Handle {
    pub(crate) fn command(&self, command: Command) {
        // The thread lives as long as this sender.
        let _ = self.orders.send(Order::Command(id(&self.shared), Box::new(command)));
    }

    pub(crate) fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no thread panics while it holds this lock")
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.command(Command::Forget);
    }
}

fn id(shared: &Arc<Mutex<Shared>>) -> SeatId {
    Arc::as_ptr(shared).addr()
}

fn run(orders: &mpsc::Receiver<Order>) {
    let mut seats: Vec<Seat> = Vec::new();
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    loop {
        loop {
            match orders.try_recv() {
                Ok(Order::Add(seat)) => seats.push(*seat),
                Ok(Order::Command(to, command)) => {
                    if let Some(index) = seats.iter().position(|seat| id(&seat.shared) == to) {
                        let over = seats[index].handle_command(*command, Instant::now());
                        if over {
                            seats.swap_remove(index);
                        }
                    }
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        let mut wake = Instant::now() + TICK;
        for seat in seats.iter_mut().filter(|seat| !seat.failed) {
            match seat.step(&mut buffer) {
                Ok(due) => wake = wake.min(due),
                Err(error) => {
                    eprintln!("loadgen: {error}");
                    seat.failed = true;
                    seat.publish_state();
                }
            }
        }
        let sockets: Vec<&UdpSocket> = seats.iter().map(|seat| &seat.socket).collect();
        if let Err(error) = socket::wait_readable(&sockets, wake) {
            eprintln!("loadgen: {error}");
            return;
        }
    }
}

/// A guest with its socket and network.
pub(crate) struct Seat {
    guest: Guest,
    socket: UdpSocket,
    outgoing: Netem<Transmit>,
    incoming: Netem<(SocketAddr, Vec<u8>)>,
    seed: u64,
    keep_sent: bool,
    flood: Option<Flood>,
    /// Its socket broke.
    failed: bool,
    shared: Arc<Mutex<Shared>>,
}

struct Flood {
    hostile: Hostile,
    left: u64,
    next: Instant,
}

impl Seat {
    pub(crate) fn with_network(
        guest: Guest,
        socket: UdpSocket,
        outgoing: Netem<Transmit>,
        incoming: Netem<(SocketAddr, Vec<u8>)>,
        seed: u64,
        keep_sent: bool,
    ) -> Seat {
        let shared = Arc::new(Mutex::new(Shared { alive: true, ..Shared::default() }));
        Seat { guest, socket, outgoing, incoming, seed, keep_sent, flood: None, failed: false, shared }
    }

    /// True when the guest is to be forgotten.
    fn handle_command(&mut self, command: Command, now: Instant) -> bool {
        match command {
            Command::Impair(impairments) => {
                let [outgoing, incoming] = *impairments;
                self.outgoing.set_impairments(outgoing, now);
                self.incoming.set_impairments(incoming, now);
            }
            Command::Pause { kind, paused } => {
                let replay = self.guest.replay_mut();
                match (replay, paused) {
                    (Some(replay), true) => replay.pause(kind),
                    (Some(replay), false) => replay.resume(kind, now),
                    (None, _) => {}
                }
            }
            Command::Hostile { count } => {
                let hostile = Hostile::new(self.seed, &self.guest.ssrcs());
                self.flood = Some(Flood { hostile, left: count, next: now });
            }
            Command::End { goodbye, done } => {
                if goodbye {
                    self.guest.close(now);
                    while let Some(transmit) = self.guest.poll_transmit() {
                        // It is over either way.
                        let _ = socket::send(&self.socket, &transmit);
                    }
                }
                self.publish_state();
                // Nobody waits when the handle is gone.
                let _ = done.send(());
                return true;
            }
            Command::Forget => return true,
        }
        false
    }

    /// Does what is due and says when the next thing is.
    fn step(&mut self, buffer: &mut [u8]) -> io::Result<Instant> {
        while let Some((length, from)) = socket::receive(&self.socket, buffer)? {
            self.incoming.push((from, buffer[..length].to_vec()), length, Instant::now());
        }
        let now = Instant::now();
        while let Some((from, datagram)) = self.incoming.poll(now) {
            self.guest.handle_datagram(&datagram, from, now);
        }
        if now >= self.guest.poll_timeout() {
            self.guest.handle_timeout(now);
        }
        while let Some(transmit) = self.guest.poll_transmit() {
            let bytes = transmit.datagram.len();
            self.outgoing.push(transmit, bytes, now);
        }
        while let Some(transmit) = self.outgoing.poll(now) {
            socket::send(&self.socket, &transmit)?;
        }
        self.send_hostile(now)?;
        self.publish_state();
        let timeouts = [
            Some(self.guest.poll_timeout()),
            self.outgoing.poll_timeout(),
            self.incoming.poll_timeout(),
            self.flood.as_ref().map(|flood| flood.next),
        ];
        Ok(timeouts.into_iter().flatten().min().unwrap_or(now + TICK))
    }

    /// Around the impairments: what is counted is what leaves.
    fn send_hostile(&mut self, now: Instant) -> io::Result<()> {
        let Some(flood) = self.flood.as_mut().filter(|flood| flood.next <= now) else {
            return Ok(());
        };
        let Some(to) = self.guest.remote() else {
            return Ok(());
        };
        let burst = flood.left.min(hostile::BURST);
        for _ in 0..burst {
            let (_, datagram) = flood.hostile.datagram();
            socket::send(&self.socket, &Transmit { to, datagram })?;
        }
        flood.left -= burst;
        flood.next = now + hostile::PAUSE;
        if flood.left == 0 {
            self.flood = None;
        }
        self.shared.lock().expect("no thread panics while it holds this lock").hostile_sent += burst;
        Ok(())
    }

    fn publish_state(&mut self) {
        let sent = self.guest.take_sent();
        let paused = self.guest.replay_mut().is_none_or(|replay| Replay::is_paused(replay));
        let mut shared = self.shared.lock().expect("no thread panics while it holds this lock");
        shared.connected = self.guest.is_connected();
        shared.alive = self.guest.is_alive() && !self.failed;
        shared.paused = paused && self.outgoing.poll_timeout().is_none();
        shared.stats = self.guest.stats();
        shared.network = NetworkStats { outgoing: self.outgoing.stats(), incoming: self.incoming.stats() };
        if self.keep_sent {
            shared.sent.extend(sent);
        }
    }
}
