//! A bad network, one direction of it: loss, delay, jitter, reordering, duplicates, a rate limit, blackouts.
//!
//! Input: packets and the time; output: the packets that survive, when they are due. No clock, no socket, no global
//! random numbers: the same seed and the same calls give the same result, in real and in virtual time.
//! Order of effects: blackout, loss, rate limit with its drop-tail queue, delay and jitter, reordering, duplication.
//! Bounds: the queue holds what fits into the rate limit's queue time plus the delay; at most [`MAX_QUEUED`] packets.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use crate::rng::Rng;

/// More packets than this in flight are dropped, whatever the settings say.
pub const MAX_QUEUED: usize = 65_536;
/// A reordered packet comes this much later than it would have.
const REORDER_BY: Duration = Duration::from_millis(10);

/// What the network does. Probabilities are 0 to 1; the default does nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Impairments {
    /// Share of packets lost, over a long time.
    pub loss: f64,
    /// Mean length of a run of lost packets (Gilbert model); up to 1 every loss is independent.
    pub burst: f64,
    /// One way.
    pub delay: Duration,
    /// Added to the delay, uniform in 0 to this. Packets do not overtake one another by it.
    pub jitter: Duration,
    /// Share of packets that arrive 10 ms later than in order.
    pub reorder: f64,
    /// Share of packets that arrive twice.
    pub duplicate: f64,
    /// Serialisation rate; what has waited longer than `queue` is dropped.
    pub rate_kbps: Option<u32>,
    /// Longest wait before the rate limit; zero means 200 ms.
    pub queue: Duration,
    /// Times since the start in which nothing passes.
    pub blackouts: Vec<Blackout>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blackout {
    pub at: Duration,
    pub duration: Duration,
}

/// Counts of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetemStats {
    pub pushed: u64,
    pub lost: u64,
    /// Dropped before the rate limit, or because [`MAX_QUEUED`] were in flight.
    pub queue_full: u64,
    pub blacked_out: u64,
    pub duplicated: u64,
    pub reordered: u64,
}

impl std::ops::Add for NetemStats {
    type Output = NetemStats;

    fn add(self, other: NetemStats) -> NetemStats {
        NetemStats {
            pushed: self.pushed + other.pushed,
            lost: self.lost + other.lost,
            queue_full: self.queue_full + other.queue_full,
            blacked_out: self.blacked_out + other.blacked_out,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
        }
    }
}

/// One direction of a link that carries packets of type `P`.
#[derive(Debug)]
pub struct Netem<P> {
    impairments: Impairments,
    rng: Rng,
    epoch: Instant,
    /// In a run of losses.
    in_burst: bool,
    /// When the rate limit has sent all that it was given.
    link_free: Instant,
    /// When the latest packet in order is due: nothing overtakes it.
    latest: Instant,
    queue: BinaryHeap<Reverse<Queued<P>>>,
    pushed: u64,
    stats: NetemStats,
}

impl<P: Clone> Netem<P> {
    /// `epoch` is where the blackouts' times count from.
    pub fn new(impairments: Impairments, seed: u64, epoch: Instant) -> Netem<P> {
        Netem {
            impairments,
            rng: Rng::new(seed),
            epoch,
            in_burst: false,
            link_free: epoch,
            latest: epoch,
            queue: BinaryHeap::new(),
            pushed: 0,
            stats: NetemStats::default(),
        }
    }

    /// Changes the network from here on; what is in flight keeps its time. Blackouts count from `now`.
    pub fn set_impairments(&mut self, impairments: Impairments, now: Instant) {
        self.impairments = impairments;
        self.epoch = now;
        self.in_burst = false;
    }

    pub fn stats(&self) -> NetemStats {
        self.stats
    }

    /// A packet of `bytes` bytes enters.
    pub fn push(&mut self, packet: P, bytes: usize, now: Instant) {
        self.stats.pushed += 1;
        if self.is_blacked_out(now) {
            self.stats.blacked_out += 1;
        } else if self.is_lost() {
            self.stats.lost += 1;
        } else if let Some(sent) = self.serialise(bytes, now) {
            self.schedule(packet, sent);
        } else {
            self.stats.queue_full += 1;
        }
    }

    /// The next packet that is due.
    pub fn poll(&mut self, now: Instant) -> Option<P> {
        if self.queue.peek()?.0.due > now {
            return None;
        }
        self.queue.pop().map(|Reverse(queued)| queued.packet)
    }

    /// When the next packet is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse(queued)| queued.due)
    }

    fn is_blacked_out(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.epoch);
        self.impairments.blackouts.iter().any(|b| b.at <= since && since < b.at + b.duration)
    }

    /// Gilbert model: a run of losses goes on with probability 1 - 1/burst, and starts so often that the share of
    /// lost packets is `loss`.
    fn is_lost(&mut self) -> bool {
        let Impairments { loss, burst, .. } = self.impairments;
        if burst <= 1.0 {
            return self.rng.chance(loss);
        }
        let probability = if self.in_burst {
            1.0 - 1.0 / burst
        } else if loss < 1.0 {
            (loss / (burst * (1.0 - loss))).min(1.0)
        } else {
            1.0
        };
        self.in_burst = self.rng.chance(probability);
        self.in_burst
    }

    /// When the packet's last bit is through the rate limit; `None` when its queue is full.
    fn serialise(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        let Some(kbps) = self.impairments.rate_kbps else {
            return Some(now);
        };
        let longest = match self.impairments.queue {
            Duration::ZERO => Duration::from_millis(200),
            queue => queue,
        };
        let start = self.link_free.max(now);
        if start.duration_since(now) > longest {
            return None;
        }
        let bits = u64::try_from(bytes).ok()?.saturating_mul(8);
        let nanoseconds = bits.saturating_mul(1_000_000) / u64::from(kbps.max(1));
        self.link_free = start + Duration::from_nanos(nanoseconds);
        Some(self.link_free)
    }

    fn schedule(&mut self, packet: P, sent: Instant) {
        let Impairments { delay, jitter, reorder, duplicate, .. } = self.impairments;
        let jitter = Duration::from_nanos(self.rng.below(u64::try_from(jitter.as_nanos()).unwrap_or(u64::MAX)));
        let mut due = (sent + delay + jitter).max(self.latest);
        if self.rng.chance(reorder) {
            self.stats.reordered += 1;
            due += REORDER_BY;
        } else {
            self.latest = due;
        }
        if self.rng.chance(duplicate) {
            self.stats.duplicated += 1;
            self.enqueue(packet.clone(), due);
        }
        self.enqueue(packet, due);
    }

    fn enqueue(&mut self, packet: P, due: Instant) {
        if self.queue.len() >= MAX_QUEUED {
            self.stats.queue_full += 1;
            return;
        }
        self.pushed += 1;
        self.queue.push(Reverse(Queued { due, number: self.pushed, packet }));
    }
}

/// Ordered by when it is due, then by when it came.
#[derive(Debug)]
struct Queued<P> {
    due: Instant,
    number: u64,
    packet: P,
}

impl<P> Ord for Queued<P> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

impl<P> PartialOrd for Queued<P> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> PartialEq for Queued<P> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<P> Eq for Queued<P> {}

#[cfg(test)]
mod tests;
