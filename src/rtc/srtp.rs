//! SRTP and SRTCP (RFC 3711, RFC 7714): the only place that knows webrtc-srtp.
//!
//! Protected datagrams in, plain RTP and RTCP packets out, and the reverse for our RTCP. RTP, hundreds of packets a
//! second, is opened by [`guest_relay_srtp_transform`] without allocating; RTCP, a few a second each way, by webrtc-srtp. Of
//! that crate only `Context` is used, and never on bytes that were not walked first, because its parsers panic on some of them, its
//! tables grow with every SSRC it is shown, and the first packet of an SSRC moves the replay window before it is
//! authenticated. So here:
//! - an own header walk decides what is a packet at all; the crate never parses a header;
//! - every SSRC has state of its own, which is kept only once a packet has authenticated on it. A packet that fails
//!   therefore changes nothing;
//! - at most [`MAX_SSRCS`] are kept for each of RTP and RTCP, the silent ones giving way ([`streams`]), and trials of SSRCs
//!   that nobody announced are rationed;
//! - a stream that has gone on by more than half a cycle of sequence numbers while nothing was heard, which RFC 3711's
//!   guess cannot follow, is found again one cycle on, by trials rationed in the same way;
//! - an SRTCP packet that says it is not encrypted is refused: the crate would return it unauthenticated;
//! - a panic inside a cipher's crate is caught; this direction then refuses everything, and the session should end.

mod error;
mod keys;
mod sequence;
mod shape;
pub mod streams;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use bytes::Bytes;
use guest_relay_srtp_transform::RtpKeys;
use webrtc_srtp::context::Context;
use webrtc_srtp::option::srtcp_replay_protection;
use webrtc_srtp::protection_profile::ProtectionProfile;

pub use self::error::SrtpError;
pub use self::sequence::REPLAY_WINDOW_PACKETS;
use self::sequence::Sequence;
use self::shape::{RtcpShape, RtpShape};
use self::streams::{Number, Streams};
pub use keys::{KeySalt, Keys, SrtpProfile};
pub use streams::MAX_SSRCS;

/// Failed trials of unannounced SSRCs that may come in one burst.
pub const TRIAL_BURST: u32 = 32;

/// How often one more such trial is allowed.
pub const TRIAL_INTERVAL: Duration = Duration::from_millis(32);

/// A known SSRC whose packets have not authenticated for so long may have gone on where its numbers are guessed wrong.
pub const RESYNC_AFTER: Duration = Duration::from_secs(1);

/// The index of the last SRTCP packet that one master key may protect (RFC 3711 §9.2).
const LAST_SRTCP_INDEX: u32 = (1 << 31) - 1;

/// Packets of one kind, counted by what became of them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Authenticated and decrypted.
    pub accepted: u64,
    /// [`SrtpError::TooShort`], [`SrtpError::NotVersion2`] or [`SrtpError::NotEncrypted`].
    pub malformed: u64,
    /// [`SrtpError::UnknownSsrc`] or [`SrtpError::TooManySsrcs`].
    pub not_admitted: u64,
    /// [`SrtpError::Replayed`].
    pub replayed: u64,
    /// [`SrtpError::Unauthentic`].
    pub unauthentic: u64,
    /// [`SrtpError::Crashed`].
    pub crashed: u64,
}

impl Counters {
    fn count<T>(&mut self, result: &Result<T, SrtpError>) {
        let counter = match result {
            Ok(_) => &mut self.accepted,
            Err(SrtpError::TooShort { .. } | SrtpError::NotVersion2 | SrtpError::NotEncrypted) => &mut self.malformed,
            Err(SrtpError::UnknownSsrc | SrtpError::TooManySsrcs) => &mut self.not_admitted,
            Err(SrtpError::Replayed) => &mut self.replayed,
            Err(SrtpError::Unauthentic | SrtpError::KeyExhausted) => &mut self.unauthentic,
            Err(SrtpError::Crashed) => &mut self.crashed,
        };
        *counter += 1;
    }
}

/// What [`Inbound`] has seen.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct InboundStats {
    /// RTP packets.
    pub rtp: Counters,
    /// RTCP packets.
    pub rtcp: Counters,
}

/// A packet that authenticated and had not come before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened<'a> {
    /// Of RTP one packet, of RTCP a compound.
    pub packet: &'a [u8],
    /// No packet of its SSRC with a higher index has come: nobody can have kept it back. One that was recorded on its way
    /// and is sent again is refused, or is not the newest any more.
    pub is_newest: bool,
}

/// The receiving direction of one session.
pub struct Inbound {
    profile: SrtpProfile,
    keys: KeySalt,
    rtp_keys: RtpKeys,
    announced: Vec<u32>,
    rtp: Streams<Sequence>,
    rtcp: Streams<Context>,
    trials: Trials,
    crashed: bool,
    /// The RTP packet that was lent last.
    packet: Vec<u8>,
    /// The RTCP packet that was lent last.
    compound: Bytes,
    stats: InboundStats,
}

impl Inbound {
    /// Unprotects what the peer sends: with `keys.remote`.
    pub fn new(keys: &Keys, now: Instant) -> Self {
        Self {
            profile: keys.profile,
            keys: keys.remote.clone(),
            rtp_keys: keys.remote.rtp_keys(keys.profile),
            announced: Vec::with_capacity(MAX_SSRCS),
            rtp: Streams::new(),
            rtcp: Streams::new(),
            trials: Trials::new(now),
            crashed: false,
            packet: Vec::new(),
            compound: Bytes::new(),
            stats: InboundStats::default(),
        }
    }

    /// Says that the peer's SDP names `ssrc`, so that its first packets need no trial. Past [`MAX_SSRCS`] further ones
    /// are treated like any other; they are still admitted when they authenticate.
    pub fn announce(&mut self, ssrc: u32) {
        if self.announced.len() < MAX_SSRCS && !self.announced.contains(&ssrc) {
            self.announced.push(ssrc);
        }
    }

    /// Announces these SSRCs and no others any more; those that hold state keep it.
    pub fn announce_only(&mut self, ssrcs: impl Iterator<Item = u32>) {
        self.announced.clear();
        ssrcs.for_each(|ssrc| self.announce(ssrc));
    }

    /// An SRTP packet in; header, extensions and decrypted payload out, as one RTP packet.
    pub fn unprotect_rtp(&mut self, datagram: &[u8], now: Instant) -> Result<Opened<'_>, SrtpError> {
        let result = RtpShape::parse(datagram, self.profile).and_then(|shape| self.open_rtp(datagram, &shape, now));
        self.stats.rtp.count(&result);
        result.map(|(len, is_newest)| Opened { packet: self.packet.get(..len).unwrap_or_default(), is_newest })
    }

    /// An SRTCP packet in, the compound RTCP packet out.
    pub fn unprotect_rtcp(&mut self, datagram: &[u8], now: Instant) -> Result<Opened<'_>, SrtpError> {
        let result = RtcpShape::parse(datagram, self.profile).and_then(|shape| self.open_rtcp(datagram, &shape, now));
        self.stats.rtcp.count(&result);
        let (compound, is_newest) = result?;
        self.compound = compound;
        Ok(Opened { packet: &self.compound, is_newest })
    }

    /// What was seen so far.
    pub fn stats(&self) -> &InboundStats {
        &self.stats
    }

    /// SSRCs that hold state: of RTP, of RTCP. Each at most [`MAX_SSRCS`].
    pub fn ssrcs(&self) -> (usize, usize) {
        (self.rtp.len(), self.rtcp.len())
    }

    /// Decrypts into `self.packet`; how long it is there, and whether it is the newest.
    fn open_rtp(&mut self, datagram: &[u8], shape: &RtpShape, now: Instant) -> Result<(usize, bool), SrtpError> {
        let RtpShape { ssrc, sequence_number, .. } = *shape;
        let number = Number::Sequence(sequence_number);
        let is_announced = self.announced.contains(&ssrc);
        let Self { rtp, rtp_keys, trials, crashed, packet, .. } = self;
        let mut open_at = |index| {
            packet.clear();
            packet.extend_from_slice(datagram);
            contained(crashed, || Ok(rtp_keys.open(packet, shape.header_len, ssrc, index)?))
        };
        if let Some(stream) = rtp.find(ssrc) {
            let expected = stream.state.index_of(sequence_number);
            let refused = match expected.and_then(|index| open_at(index).map(|len| (index, len))) {
                Ok((index, len)) => {
                    stream.state.record(index);
                    return Ok((len, stream.record_heard(index, now)));
                }
                Err(refused) => refused,
            };
            let is_lost = matches!(refused, SrtpError::Unauthentic | SrtpError::Replayed)
                && stream.silence(now) >= RESYNC_AFTER
                && trials.allowed(now);
            if is_lost {
                for index in number.beyond(stream.highest()) {
                    if let Ok(len) = open_at(index) {
                        stream.state.record(index);
                        return Ok((len, stream.record_heard(index, now)));
                    }
                }
                trials.spend();
            }
            return Err(refused);
        }
        if !rtp.has_room(ssrc, now) {
            return Err(SrtpError::TooManySsrcs);
        }
        if !is_announced && !trials.allowed(now) {
            return Err(SrtpError::UnknownSsrc);
        }
        // Where no index is left, all that it can have was used before.
        let mut refused = SrtpError::Replayed;
        for index in rtp.candidates(ssrc, number) {
            match open_at(index) {
                Ok(len) => {
                    rtp.admit(ssrc, Sequence::beginning(index), index, now);
                    return Ok((len, true));
                }
                Err(error) => refused = error,
            }
        }
        if !is_announced {
            trials.spend();
        }
        Err(refused)
    }

    fn open_rtcp(&mut self, datagram: &[u8], shape: &RtcpShape, now: Instant) -> Result<(Bytes, bool), SrtpError> {
        let RtcpShape { ssrc, index } = *shape;
        if let Some(stream) = self.rtcp.find(ssrc) {
            let opened = contained(&mut self.crashed, || stream.state.decrypt_rtcp(datagram).map_err(refusal));
            return opened.map(|packet| (packet, stream.record_heard(index.into(), now)));
        }
        if !self.rtcp.has_room(ssrc, now) {
            return Err(SrtpError::TooManySsrcs);
        }
        let is_announced = self.announced.contains(&ssrc);
        if !is_announced && !self.trials.allowed(now) {
            return Err(SrtpError::UnknownSsrc);
        }
        if self.rtcp.candidates(ssrc, Number::Index(index)).next().is_none() {
            return Err(SrtpError::Replayed);
        }
        let opened = contained(&mut self.crashed, || {
            let mut state = new_context(self.profile, &self.keys);
            let packet = state.decrypt_rtcp(datagram).map_err(refusal)?;
            Ok((state, packet))
        });
        match opened {
            Ok((state, packet)) => {
                self.rtcp.admit(ssrc, state, index.into(), now);
                Ok((packet, true))
            }
            Err(error) => {
                if !is_announced {
                    self.trials.spend();
                }
                Err(error)
            }
        }
    }
}

/// A token bucket over failed trials of SSRCs that were not announced.
struct Trials {
    left: u32,
    refilled_at: Instant,
}

impl Trials {
    fn new(now: Instant) -> Self {
        Self { left: TRIAL_BURST, refilled_at: now }
    }

    fn allowed(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.refilled_at);
        let due = elapsed.as_millis() / TRIAL_INTERVAL.as_millis();
        if due > 0 {
            let due = u32::try_from(due).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(due).min(TRIAL_BURST);
            self.refilled_at = now;
        }
        self.left > 0
    }

    fn spend(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}

/// The sending direction of one session. Of media nothing is sent, so it protects RTCP only.
pub struct Outbound {
    context: Context,
    crashed: bool,
    protected: u32,
}

impl Outbound {
    /// Protects with `keys.local`.
    pub fn new(keys: &Keys) -> Self {
        Self { context: new_context(keys.profile, &keys.local), crashed: false, protected: 0 }
    }

    /// A compound RTCP packet in, an SRTCP packet out.
    pub fn protect_rtcp(&mut self, compound: &[u8]) -> Result<Vec<u8>, SrtpError> {
        if self.protected == LAST_SRTCP_INDEX {
            return Err(SrtpError::KeyExhausted);
        }
        if compound.len() < shape::RTCP_HEADER_LEN {
            return Err(SrtpError::TooShort { need: shape::RTCP_HEADER_LEN, have: compound.len() });
        }
        let Self { context, crashed, .. } = self;
        let packet = contained(crashed, || context.encrypt_rtcp(compound).map_err(refusal))?;
        self.protected += 1;
        Ok(packet.into())
    }
}

/// Calls into a cipher's crate and turns a panic into an error, this time and from then on.
fn contained<T>(crashed: &mut bool, call: impl FnOnce() -> Result<T, SrtpError>) -> Result<T, SrtpError> {
    if !*crashed && let Ok(result) = catch_unwind(AssertUnwindSafe(call)) {
        return result;
    }
    *crashed = true;
    Err(SrtpError::Crashed)
}

fn refusal(error: webrtc_srtp::Error) -> SrtpError {
    match error {
        webrtc_srtp::Error::SrtcpSsrcDuplicated(..) => SrtpError::Replayed,
        _ => SrtpError::Unauthentic,
    }
}

fn new_context(profile: SrtpProfile, keys: &KeySalt) -> Context {
    let profile = match profile {
        SrtpProfile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        SrtpProfile::Aes128CmSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
    };
    let replay_protection = Some(srtcp_replay_protection(REPLAY_WINDOW_PACKETS));
    Context::new(keys.key(), keys.salt(), profile, None, replay_protection)
        .expect("KeySalt holds what its profile asks for")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_panic_in_webrtc_srtp_is_contained_and_ends_the_direction() {
        let profile = SrtpProfile::AeadAes128Gcm;
        let keys = Keys::from_client_export(profile, &[1; 56]).unwrap();
        let now = Instant::now();
        let mut inbound = Inbound::new(&keys, now);
        inbound.announce(5);
        let result: Result<(), _> = contained(&mut inbound.crashed, || panic!("index out of bounds"));
        assert_eq!(result, Err(SrtpError::Crashed));
        let mut packet = [0x80; 60];
        packet[8..12].copy_from_slice(&5_u32.to_be_bytes());
        assert_eq!(inbound.unprotect_rtp(&packet, now), Err(SrtpError::Crashed));
        assert_eq!(inbound.stats().rtp.crashed, 1);
    }

    #[test]
    fn a_key_protects_no_more_than_2_to_the_31_rtcp_packets() {
        let keys = Keys::from_client_export(SrtpProfile::AeadAes128Gcm, &[1; 56]).unwrap();
        let mut outbound = Outbound::new(&keys);
        outbound.protected = LAST_SRTCP_INDEX - 1;
        assert!(outbound.protect_rtcp(&[0x80, 201, 0, 1, 0, 0, 0, 1]).is_ok());
        assert_eq!(outbound.protect_rtcp(&[0x80, 201, 0, 1, 0, 0, 0, 1]), Err(SrtpError::KeyExhausted));
    }
}
