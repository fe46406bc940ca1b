//! Datagrams that no honest peer sends: random bytes, and bytes that look like STUN, DTLS, RTP or RTCP at first glance.
//!
//! Input: a seed and optionally the SSRCs of a live session; output: datagrams of each length 0 to 1500 in each shape.
//! [`flood`] sends them from sockets of its own, in bursts small enough that the receiver's socket buffer holds them:
//! what is tested is what the receiver does with them, not how the kernel drops them.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::rng::Rng;
use crate::socket;

/// The longest datagram: an Ethernet frame's payload.
pub const MAX_BYTES: u64 = 1500;
/// How many datagrams are sent at once, and the pause after them. 32 of the longest are charged about 74 kB of a socket
/// buffer, whose usual limit is 208 kB.
pub(crate) const BURST: u64 = 32;
pub(crate) const PAUSE: Duration = Duration::from_millis(2);
/// How many sockets a flood comes from: some datagrams share an address, most of them follow an unrelated one.
const SOURCES: u64 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Random,
    Stun,
    Dtls,
    Rtp,
    Rtcp,
}

const SHAPES: [Shape; 5] = [Shape::Random, Shape::Stun, Shape::Dtls, Shape::Rtp, Shape::Rtcp];

/// An endless, seeded sequence: lengths go up from 0 to 1500 in all five shapes and start over.
#[derive(Clone, Debug)]
pub struct Hostile {
    rng: Rng,
    number: u64,
    ssrcs: Vec<u32>,
}

impl Hostile {
    /// RTP- and RTCP-shaped datagrams use the given SSRCs half of the time.
    pub fn new(seed: u64, ssrcs: &[u32]) -> Hostile {
        Hostile { rng: Rng::new(seed), number: 0, ssrcs: ssrcs.to_vec() }
    }

    pub fn datagram(&mut self) -> (Shape, Vec<u8>) {
        let shapes = SHAPES.len() as u64;
        let length = self.number / shapes % (MAX_BYTES + 1);
        let shape = SHAPES.into_iter().cycle().nth(usize::try_from(self.number % shapes).unwrap_or(0));
        self.number += 1;
        let shape = shape.expect("a cycle does not end");
        let mut datagram = vec![0; usize::try_from(length).unwrap_or(0)];
        self.rng.fill(&mut datagram);
        let prefix = match shape {
            Shape::Random => Vec::new(),
            Shape::Stun => self.stun(length),
            Shape::Dtls => self.dtls(length),
            Shape::Rtp => self.rtp(),
            Shape::Rtcp => self.rtcp(length),
        };
        for (byte, shaped) in datagram.iter_mut().zip(prefix) {
            *byte = shaped;
        }
        (shape, datagram)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let index = self.rng.below(from.len() as u64);
        from[usize::try_from(index).expect("an index into a slice")]
    }

    /// A length field: true in two of three, off by a little, or anything.
    fn length_field(&mut self, truth: u64) -> [u8; 2] {
        let value = match self.rng.below(6) {
            0 => self.rng.below(0x1_0000),
            1 => truth + self.rng.below(5),
            _ => truth,
        };
        u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes()
    }

    /// RFC 8489 §5: `type u16 | length u16 | magic cookie | transaction id`, then attributes.
    fn stun(&mut self, length: u64) -> Vec<u8> {
        let kind: u16 = self.pick(&[0x0001, 0x0011, 0x0101, 0x0111, 0x0003, 0x03FF]);
        let mut out = kind.to_be_bytes().to_vec();
        out.extend(self.length_field(length.saturating_sub(20)));
        out.extend([0x21, 0x12, 0xA4, 0x42]);
        out.extend(self.rng.u64().to_be_bytes());
        out.extend([0; 4]);
        let mut rest = length.saturating_sub(20);
        while rest >= 4 {
            let attribute: u16 = self.pick(&[0x0006, 0x0008, 0x0020, 0x0024, 0x0025, 0x8028, 0x802A, 0xC057]);
            let bytes = self.pick(&[0, 3, 4, 8, 20, 9]).min(rest - 4);
            out.extend(attribute.to_be_bytes());
            out.extend(self.length_field(bytes));
            let value = self.rng.u64().to_be_bytes();
            let padded = bytes.next_multiple_of(4);
            out.extend(value.into_iter().cycle().take(usize::try_from(padded).unwrap_or(0)));
            rest = rest.saturating_sub(4 + padded);
        }
        out
    }

    /// RFC 6347 §4.1 and §4.2.2: record header, then a handshake header.
    fn dtls(&mut self, length: u64) -> Vec<u8> {
        let mut out = vec![self.pick(&[20, 21, 22, 22, 22, 23, 25, 63])];
        let version: u16 = self.pick(&[0xFEFD, 0xFEFD, 0xFEFF, 0x0303]);
        out.extend(version.to_be_bytes());
        let epoch: u16 = self.pick(&[0, 0, 0, 1, 1, 0xFFFF]);
        out.extend(epoch.to_be_bytes());
        let [_, _, sequence_number @ ..] = self.rng.u64().to_be_bytes();
        out.extend(sequence_number);
        out.extend(self.length_field(length.saturating_sub(13)));
        out.push(self.pick(&[0, 1, 2, 3, 11, 12, 13, 14, 15, 16, 20]));
        let body = u32::from(u16::from_be_bytes(self.length_field(length.saturating_sub(25))));
        let [_, total @ ..] = body.to_be_bytes();
        out.extend(total);
        let message: u16 = self.pick(&[0, 1, 2, 5]);
        out.extend(message.to_be_bytes());
        let offset: u32 = self.pick(&[0, 0, 1, 0x00FF_FFFF]);
        let [_, offset @ ..] = offset.to_be_bytes();
        out.extend(offset);
        out.extend(total);
        out
    }

    fn ssrc(&mut self) -> [u8; 4] {
        if !self.ssrcs.is_empty() && self.rng.chance(0.5) {
            let ssrcs = self.ssrcs.clone();
            return self.pick(&ssrcs).to_be_bytes();
        }
        let [ssrc @ .., _, _, _, _] = self.rng.u64().to_be_bytes();
        ssrc
    }

    /// RFC 3550 §5.1, with header extensions that may lie (RFC 8285).
    fn rtp(&mut self) -> Vec<u8> {
        let mut out = vec![self.pick(&[0x80, 0x80, 0x90, 0x90, 0xA0, 0x8F, 0xBF])];
        out.push(self.pick(&[108, 109, 111, 0x80 | 108, 0, 127]));
        let [number @ .., _, _] = self.rng.u64().to_be_bytes();
        out.extend(number);
        out.extend(self.ssrc());
        let profile: u16 = self.pick(&[0xBEDE, 0xBEDE, 0x1000, 0x1234]);
        out.extend(profile.to_be_bytes());
        let words: u16 = self.pick(&[0, 1, 2, 100, 0xFFFF]);
        out.extend(words.to_be_bytes());
        out
    }

    /// RFC 3550 §6.4: one packet of a compound, its count and length perhaps wrong.
    fn rtcp(&mut self, length: u64) -> Vec<u8> {
        let mut out = vec![self.pick(&[0x80, 0x81, 0x9F, 0xA0, 0x8F])];
        out.push(self.pick(&[200, 201, 202, 203, 204, 205, 206, 207]));
        out.extend(self.length_field((length / 4).saturating_sub(1)));
        out.extend(self.ssrc());
        out
    }
}

/// Sends `count` datagrams to an address from [`SOURCES`] sockets that stay open; returns how long it took.
pub fn flood(to: SocketAddr, count: u64, seed: u64) -> io::Result<Duration> {
    let unspecified: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let sources: Vec<UdpSocket> = (0..SOURCES).map(|_| UdpSocket::bind(unspecified)).collect::<io::Result<_>>()?;
    let mut hostile = Hostile::new(seed, &[]);
    let start = Instant::now();
    for (number, source) in (1..=count).zip(sources.iter().cycle()) {
        let (_, datagram) = hostile.datagram();
        socket::send(source, &crate::stack::Transmit { to, datagram })?;
        if number % BURST == 0 {
            thread::sleep(PAUSE);
        }
    }
    Ok(start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_comes_in_every_shape_and_looks_like_it() {
        let mut hostile = Hostile::new(1, &[0x0102_0304]);
        let mut with_ssrc = 0;
        for length in 0..=1500 {
            for expected in SHAPES {
                let (shape, datagram) = hostile.datagram();
                assert_eq!((shape, datagram.len()), (expected, length));
                let Some([first, second, ..]) = datagram.first_chunk::<2>() else {
                    continue;
                };
                let class = match (first, second) {
                    (0..=3, _) => Shape::Stun,
                    (20..=63, _) => Shape::Dtls,
                    (128..=191, 192..=223) => Shape::Rtcp,
                    (128..=191, _) => Shape::Rtp,
                    _ => Shape::Random,
                };
                with_ssrc += u32::from(datagram.get(8..12) == Some(&[1, 2, 3, 4]));
                assert!(shape == Shape::Random || class == shape, "{shape:?} {datagram:02X?}");
            }
        }
        assert!((650..850).contains(&with_ssrc), "half of the RTP: {with_ssrc}");
    }

    #[test]
    fn the_same_seed_gives_the_same_datagrams() {
        let some = |seed| {
            let mut hostile = Hostile::new(seed, &[7]);
            (0..5000).map(|_| hostile.datagram().1).collect::<Vec<_>>()
        };
        assert_eq!(some(3), some(3));
        assert_ne!(some(3), some(4));
    }
}
