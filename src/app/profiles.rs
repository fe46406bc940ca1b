//! Which SRTP profiles a guest on the direct path is offered.
//!
//! As DTLS client we list, and the peer chooses; browsers choose AES-CM with HMAC-SHA1 wherever it is listed. On ARM that
//! is the dear one: SHA-1 is computed in software there, AES-GCM by the CPU's own instructions. So on ARM AES-GCM is
//! listed alone, which every current browser takes, until a handshake in that slot fails: from then on both are listed
//! there, and an encoder without AES-GCM comes in with its second try.

use crate::guest::Slot;
use crate::rtc::peer::EndReason;
use crate::rtc::srtp::SrtpProfile;
use crate::slot::SessionEnd;

/// What one slot has taught.
pub(super) struct Profiles {
    prefers_gcm: bool,
    /// A handshake failed in the slot.
    failed: bool,
}

impl Profiles {
    /// As this machine computes.
    pub(super) fn new() -> Self {
        Self { prefers_gcm: cfg!(target_arch = "aarch64"), failed: false }
    }

    /// What to list for the next guest in this slot.
    pub(super) fn offer(&self) -> Vec<SrtpProfile> {
        match self.prefers_gcm && !self.failed {
            true => vec![SrtpProfile::AeadAes128Gcm],
            false => SrtpProfile::OFFERED.to_vec(),
        }
    }

    /// Learns from how a session ended.
    pub(super) fn record_end(&mut self, slot: Slot, reason: &SessionEnd) {
        if self.prefers_gcm
            && let SessionEnd::Peer(EndReason::Dtls(error)) = reason
            && !std::mem::replace(&mut self.failed, true)
        {
            log::info!("slot {}: {error}; AES-CM is offered there too from now on", slot.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtc::dtls::DtlsError;

    #[test]
    fn gcm_is_listed_alone_until_a_handshake_in_the_slot_fails() {
        let mut profiles = Profiles { prefers_gcm: true, failed: false };
        let alone = [SrtpProfile::AeadAes128Gcm];
        assert_eq!(profiles.offer(), alone);
        profiles.record_end(Slot(0), &SessionEnd::Left);
        profiles.record_end(Slot(0), &SessionEnd::Peer(EndReason::FellSilent));
        assert_eq!(profiles.offer(), alone);
        profiles.record_end(Slot(0), &SessionEnd::Peer(EndReason::Dtls(DtlsError::NoSrtpProfile)));
        assert_eq!(profiles.offer(), SrtpProfile::OFFERED);
    }

    #[test]
    fn where_both_cost_the_same_both_are_listed() {
        let profiles = Profiles { prefers_gcm: false, failed: false };
        assert_eq!(profiles.offer(), SrtpProfile::OFFERED);
    }
}
