//! A session whose other end is the reference, and the small packets that tests send through it.

use std::time::Instant;

use guest_relay::rtc::srtp::{Inbound, Keys, Outbound, SrtpError, SrtpProfile};

use super::reference::Session;
use crate::rng::Rng;

/// A session with the reference at the peer's end.
pub(crate) struct Pair {
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
    pub(crate) rtp: Session,
    pub(crate) rtcp: Session,
    /// What the peer expects of us.
    pub(crate) our_rtcp: Session,
    pub(crate) now: Instant,
}

impl Pair {
    pub(crate) fn new(profile: SrtpProfile) -> Self {
        let mut material = vec![0; profile.export_len()];
        Rng::new(1).fill(&mut material);
        Self::with(profile, &material)
    }

    pub(crate) fn with(profile: SrtpProfile, material: &[u8]) -> Self {
        let keys = Keys::from_client_export(profile, material).unwrap();
        let now = Instant::now();
        let (key, salt) = (keys.remote.key(), keys.remote.salt());
        Self {
            inbound: Inbound::new(&keys, now),
            outbound: Outbound::new(&keys),
            rtp: Session::rtp(profile, key, salt),
            rtcp: Session::rtcp(profile, key, salt),
            our_rtcp: Session::rtcp(profile, keys.local.key(), keys.local.salt()),
            now,
        }
    }

    /// Protects a small packet and hands it over.
    pub(crate) fn rtp(&mut self, ssrc: u32, index: u64) -> Result<(), SrtpError> {
        let packet = rtp(ssrc, index);
        let protected = self.rtp.protect_rtp(&packet, 12, index);
        let unprotected = self.inbound.unprotect_rtp(&protected, self.now)?;
        assert_eq!(unprotected.packet, packet);
        Ok(())
    }

    pub(crate) fn rtcp(&mut self, ssrc: u32, index: u32) -> Result<(), SrtpError> {
        let packet = rtcp(ssrc);
        let protected = self.rtcp.protect_rtcp(&packet, index);
        let unprotected = self.inbound.unprotect_rtcp(&protected, self.now)?;
        assert_eq!(unprotected.packet, packet);
        Ok(())
    }
}

/// An RTP packet of 20 bytes.
pub(crate) fn rtp(ssrc: u32, index: u64) -> Vec<u8> {
    let [.., high, low] = index.to_be_bytes();
    let mut packet = vec![0x80, 96, high, low, 0, 0, 0, 1];
    packet.extend(ssrc.to_be_bytes());
    packet.extend(index.to_be_bytes());
    packet
}

/// An empty receiver report and a CNAME.
pub(crate) fn rtcp(ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, 1];
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0x81, 202, 0, 2]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend([1, 2, b'a', b'b']);
    packet
}
