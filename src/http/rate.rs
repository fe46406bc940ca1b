//! Rate limits as token buckets, one per key (a guest slot together with a client network, or a network alone).
//! Sans-IO: the caller brings the time.
//!
//! Bounds: [`KEYS_MAX`] buckets; when all are taken, the one that was asked about longest ago makes room.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Most keys remembered.
pub const KEYS_MAX: usize = 1024;

/// At most `per_minute` takes in a burst, refilled evenly.
#[derive(Debug)]
pub struct RateLimit<K> {
    burst: u32,
    interval: Duration,
    /// For each key the moment at which its bucket is full again; a moment in the past means full.
    full_at: HashMap<K, Instant>,
}

impl<K: Eq + Hash + Clone> RateLimit<K> {
    /// `per_minute` is at least 1.
    pub fn new(per_minute: u32) -> Self {
        let burst = per_minute.max(1);
        Self { burst, interval: Duration::from_secs(60) / burst, full_at: HashMap::new() }
    }

    /// Another limit from now on. What was taken so far counts as before.
    pub fn set(&mut self, per_minute: u32) {
        let full_at = std::mem::take(&mut self.full_at);
        *self = Self { full_at, ..Self::new(per_minute) };
    }

    /// Takes one token, or says how long until there is one.
    pub fn take(&mut self, key: &K, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.get(key).copied().map_or(now, |at| at.max(now));
        let after = full_at + self.interval;
        let missing = after.saturating_duration_since(now);
        let capacity = self.interval * self.burst;
        if missing > capacity {
            return Err(missing - capacity);
        }
        if !self.full_at.contains_key(key) {
            self.make_room(now);
        }
        self.full_at.insert(key.clone(), after);
        Ok(())
    }

    fn make_room(&mut self, now: Instant) {
        if self.full_at.len() < KEYS_MAX {
            return;
        }
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.len() >= KEYS_MAX
            && let Some(oldest) = self.full_at.iter().min_by_key(|(_, at)| **at).map(|(key, _)| key.clone())
        {
            self.full_at.remove(&oldest);
        }
    }
}

/// What counts as one client: an IPv4 address, or the /64 that an IPv6 address belongs to, since a single machine may
/// use all of that.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ten_per_minute_means_ten_at_once_and_then_one_every_six_seconds() {
        let start = Instant::now();
        let mut limit = RateLimit::new(10);
        for _ in 0..10 {
            assert_eq!(limit.take(&"a", start), Ok(()));
        }
        assert_eq!(limit.take(&"a", start), Err(Duration::from_secs(6)));
        assert_eq!(limit.take(&"a", start + Duration::from_secs(4)), Err(Duration::from_secs(2)));
        assert_eq!(limit.take(&"a", start + Duration::from_secs(6)), Ok(()));
        assert_eq!(limit.take(&"a", start + Duration::from_secs(6)), Err(Duration::from_secs(6)));
    }

    #[test]
    fn a_refused_take_costs_nothing_and_other_keys_are_not_touched() {
        let start = Instant::now();
        let mut limit = RateLimit::new(1);
        assert_eq!(limit.take(&"a", start), Ok(()));
        for _ in 0..100 {
            limit.take(&"a", start).unwrap_err();
        }
        assert_eq!(limit.take(&"b", start), Ok(()));
        assert_eq!(limit.take(&"a", start + Duration::from_secs(60)), Ok(()));
    }

    #[test]
    fn the_number_of_keys_is_bounded_and_new_clients_are_still_served() {
        let start = Instant::now();
        let mut limit = RateLimit::new(1);
        for key in 0..3 * KEYS_MAX {
            assert_eq!(limit.take(&key, start + Duration::from_millis(key.try_into().unwrap())), Ok(()));
            assert!(limit.full_at.len() <= KEYS_MAX);
        }
    }

    #[test]
    fn ipv6_clients_are_counted_by_their_64_bit_network() {
        let network = |text: &str| network_of(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("203.0.113.7"), "203.0.113.7");
        assert_eq!(network("::ffff:203.0.113.7"), "203.0.113.7");
    }
}
