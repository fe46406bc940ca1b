//! SRTP against a reference written from the RFCs, and against forgers.
#![allow(clippy::unwrap_used)]

mod pair;
mod reference;

use std::time::Duration;

use guest_relay::rtc::srtp::streams::{IDLE_AFTER, MAX_RETIRED};
use guest_relay::rtc::srtp::{Keys, MAX_SSRCS, REPLAY_WINDOW_PACKETS, RESYNC_AFTER};
use guest_relay::rtc::srtp::{SrtpError, SrtpProfile, TRIAL_BURST, TRIAL_INTERVAL};
use guest_relay_muxer::RtpPacket;
use pair::{Pair, rtcp, rtp};

use crate::rng::Rng;

const PROFILES: [SrtpProfile; 2] = SrtpProfile::OFFERED;

fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<_> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// libsrtp's `srtp_validate` and `srtp_validate_gcm`: packets from master keys, so key derivation is in them. The first
/// master key is that of RFC 3711 B.3.
#[test]
fn packets_of_libsrtp_are_unprotected_and_made() {
    let packet = hex("800f1234 decafbad cafebabe abababab abababab abababab abababab");
    let compound = hex("81c8000b cafebabe abababab abababab abababab abababab");
    for (profile, key, salt, srtp, srtcp) in [
        (
            SrtpProfile::Aes128CmSha1_80,
            "e1f97a0d3e018be0d64fa32c06de4139",
            "0ec675ad498afeebb6960b3aabe6",
            "800f1234 decafbad cafebabe 4e55dc4c e79978d8 8ca4d215 949d2402 b78d6acc 99ea179b 8dbb",
            "81c8000b cafebabe 7128035b e487b9bd bef89041 f977a5a8 80000001 993e08cd 54d6c123 0798",
        ),
        (
            SrtpProfile::AeadAes128Gcm,
            "000102030405060708090a0b0c0d0e0f",
            "a0a1a2a3a4a5a6a7a8a9aaab",
            "800f1234 decafbad cafebabe c5002ede 04cfdd2e b91159e0 880aa06e d2976826 f796b201 df3131a1
             27e8a392",
            "81c8000b cafebabe c98b8b5d f0392a55 852b6c21 ac8e7025 c52c6fbe a2b3b446 ea31123b a88ce61e
             80000001",
        ),
    ] {
        let material = [hex(key), hex(key), hex(salt), hex(salt)].concat();
        let mut pair = Pair::with(profile, &material);
        assert_eq!(pair.inbound.unprotect_rtp(&hex(srtp), pair.now).unwrap().packet, packet);
        assert_eq!(pair.inbound.unprotect_rtcp(&hex(srtcp), pair.now).unwrap().packet, compound);
        assert_eq!(pair.outbound.protect_rtcp(&compound).unwrap(), hex(srtcp));
    }
}

#[test]
fn our_rtcp_is_protected_with_our_key_and_a_growing_index() {
    for profile in PROFILES {
        let mut pair = Pair::new(profile);
        for index in 1..=5 {
            let compound = rtcp(77);
            assert_eq!(pair.outbound.protect_rtcp(&compound).unwrap(), pair.our_rtcp.protect_rtcp(&compound, index));
        }
        assert_eq!(pair.outbound.protect_rtcp(&[0x80, 201, 0, 0]), Err(SrtpError::TooShort { need: 8, have: 4 }));
    }
}

#[test]
fn only_a_packet_ahead_of_all_others_of_its_ssrc_is_the_newest() {
    for profile in PROFILES {
        let mut pair = Pair::new(profile);
        let now = pair.now;
        for (ssrc, index, newest) in
            [(1, 65_530, true), (1, 65_540, true), (1, 65_535, false), (2, 7, true), (1, 65_541, true)]
        {
            let protected = pair.rtp.protect_rtp(&rtp(ssrc, index), 12, index);
            assert_eq!(pair.inbound.unprotect_rtp(&protected, now).unwrap().is_newest, newest, "{ssrc} {index}");
            assert_eq!(pair.inbound.unprotect_rtp(&protected, now), Err(SrtpError::Replayed));
        }
        for (ssrc, index, newest) in [(1, 5, true), (1, 9, true), (1, 7, false), (2, 1, true), (1, 10, true)] {
            let protected = pair.rtcp.protect_rtcp(&rtcp(ssrc), index);
            assert_eq!(pair.inbound.unprotect_rtcp(&protected, now).unwrap().is_newest, newest, "{ssrc} {index}");
            assert_eq!(pair.inbound.unprotect_rtcp(&protected, now), Err(SrtpError::Replayed));
        }
    }
}

#[test]
fn what_is_unprotected_reads_as_an_rtp_packet() {
    for profile in PROFILES {
        let mut pair = Pair::new(profile);
        let packet = hex("90e01234 00000bb8 00000005 bede0001 51aabb00 65b80400");
        let protected = pair.rtp.protect_rtp(&packet, 20, 0x1234);
        let unprotected = pair.inbound.unprotect_rtp(&protected, pair.now).unwrap().packet;
        let parsed = RtpPacket::parse(unprotected).unwrap();
        assert_eq!((parsed.payload_type, parsed.marker), (96, true));
        assert_eq!((parsed.sequence_number, parsed.rtp_time), (0x1234, 3000));
        assert_eq!((parsed.ssrc, parsed.payload), (5, &[0x65, 0xb8, 4, 0][..]));
        assert_eq!(parsed.extensions().count(), 1);
    }
}

/// One-byte and two-byte extensions (RFC 8285), some of whose lengths lie, and none: what the block holds is not SRTP's
/// business.
#[test]
fn headers_of_every_shape_come_through_unchanged() {
    let blocks: [&[u8]; 10] = [
        &[],
        &[0xbe, 0xde, 0, 0],
        &[0xbe, 0xde, 0, 1, 0x10, 0xaa, 0, 0],
        // id 15 ends a list, and says a length here
        &[0xbe, 0xde, 0, 2, 0x10, 0xaa, 0xff, 1, 2, 3, 4, 5],
        &[0xbe, 0xde, 0, 1, 0xf0, 0, 0, 0],
        // the element is longer than the block
        &[0xbe, 0xde, 0, 1, 0x1f, 0xaa, 0, 0],
        // id 0 with a length
        &[0xbe, 0xde, 0, 1, 0x07, 0xaa, 0, 0],
        &[0x10, 0x00, 0, 1, 5, 0, 0, 0],
        &[0x10, 0x00, 0, 1, 5, 255, 1, 2],
        &[0x12, 0x34, 0, 1, 9, 9, 9, 9],
    ];
    for profile in PROFILES {
        let mut pair = Pair::new(profile);
        let mut index = 0;
        for csrc_count in [0_u8, 1, 15] {
            for block in blocks {
                for payload_len in [0, 1, 25, 1200] {
                    let mut packet = rtp(5, index)[..12].to_vec();
                    packet[0] |= csrc_count | if block.is_empty() { 0 } else { 0x10 };
                    packet.extend(vec![0xcc; 4 * usize::from(csrc_count)]);
                    packet.extend(block);
                    let header_len = packet.len();
                    packet.extend(vec![0x77; payload_len]);
                    let protected = pair.rtp.protect_rtp(&packet, header_len, index);
                    let unprotected = pair.inbound.unprotect_rtp(&protected, pair.now).map(|opened| opened.packet);
                    assert_eq!(unprotected, Ok(&packet[..]), "{block:02x?} {payload_len}");
                    index += 1;
                }
            }
        }
    }
}

#[test]
fn headers_that_lie_about_their_length_are_refused() {
    for profile in PROFILES {
        let mut pair = Pair::new(profile);
        for (flags, extension_words, len) in [
            (0x8f, None, 12 + 16),                     // 15 CSRCs in the tag's place
            (0x8f, None, 12 + 59 + profile.tag_len()), // the last CSRC cut
            (0x90, None, 12 + 3),                      // no room for an extension's header
            (0x90, Some(0xffff), 1200),                // an extension beyond the packet
            (0x90, Some(300), 1200),
            (0x90, Some(1), 12 + 4 + 4 + profile.tag_len() - 1), // no room for the tag
            (0x9f, Some(1), 12 + 60 + 4 + 4 + profile.tag_len() - 1),
            (0x80, None, 12 + profile.tag_len() - 1),
        ] {
            let mut packet = vec![0; len];
            packet[0] = flags;
            if let Some(words) = extension_words {
                let at = 12 + 4 * usize::from(flags & 15);
                packet[at + 2..at + 4].copy_from_slice(&u16::to_be_bytes(words));
            }
            assert!(matches!(pair.inbound.unprotect_rtp(&packet, pair.now), Err(SrtpError::TooShort { .. })));
        }
        assert_eq!(pair.inbound.stats().rtp.malformed, 8);
    }
}

#[test]
fn only_version_2_is_taken() {
    for profile in PROFILES {
        let mut pair = Pair::new(profile);
        for version in [0, 1, 3] {
            let mut protected = pair.rtp.protect_rtp(&rtp(5, 1), 12, 1);
            protected[0] = version << 6;
            assert_eq!(pair.inbound.unprotect_rtp(&protected, pair.now), Err(SrtpError::NotVersion2));
            let mut protected = pair.rtcp.protect_rtcp(&rtcp(5), 1);
            protected[0] = version << 6;
            assert_eq!(pair.inbound.unprotect_rtcp(&protected, pair.now), Err(SrtpError::NotVersion2));
        }
    }
}

#[test]
fn a_replayed_packet_is_rejected() {
    for profile in PROFILES {
        let mut pair = Pair::new(profile);
        for index in 1..=REPLAY_WINDOW_PACKETS {
            pair.rtp(5, u64::try_from(index).unwrap()).unwrap();
            pair.rtcp(5, u32::try_from(index).unwrap()).unwrap();
        }
        for index in 1..=REPLAY_WINDOW_PACKETS {
            assert_eq!(pair.rtp(5, u64::try_from(index).unwrap()), Err(SrtpError::Replayed));
            assert_eq!(pair.rtcp(5, u32::try_from(index).unwrap()), Err(SrtpError::Replayed));
        }
        assert_eq!(pair.inbound.stats().rtp.replayed, 512);
        assert_eq!(pair.inbound.stats().rtcp.replayed, 512);
    }
}

#[test]
fn a_packet_is_taken_late_within_the_window_and_not_beyond() {
    let window = u64::try_from(REPLAY_WINDOW_PACKETS).unwrap();
    for profile in PROFILES {
        let mut pair = Pair::new(profile);
        pair.rtp(5, 1000).unwrap();
        pair.rtp(5, 3000).unwrap();
        pair.rtp(5, 3000 - window + 1).unwrap();
        assert_eq!(pair.rtp(5, 3000 - window), Err(SrtpError::Replayed));
        pair.rtcp(5, 1000).unwrap();
        pair.rtcp(5, 3000).unwrap();
        pair.rtcp(5, 3000 - u32::try_from(window).unwrap() + 1).unwrap();
        assert_eq!(pair.rtcp(5, 3000 - u32::try_from(window).unwrap()), Err(SrtpError::Replayed));
    }
}

#[test]
fn a_packet_replayed_a_whole_sequence_cycle_later_is_rejected() {
    for profile in PROFILES {
        let mut pair = Pair::new(profile);
        for index in (100..100 + (1 << 16)).step_by(1000) {
            pair.rtp(5, index).unwrap();
        }
        pair.rtp(5, 90 + (1 << 16)).unwrap();
        for replayed in [100, 1100, 64_100] {
            assert!(pair.rtp(5, replayed).is_err());
        }
        // Its number is free, its rollover counter is not.
        let old = pair.rtp.protect_rtp(&rtp(5, 91), 12, 91);
        assert_eq!(pair.inbound.unprotect_rtp(&old, pair.now), Err(SrtpError::Unauthentic));
        pair.rtp(5, 91 + (1 << 16)).unwrap();
    }
}

/// Packets are shuffled, repeated and lost across three wraps of the sequence number; a set of 64-bit indices says what
/// is right.
#[test]
fn three_wraps_with_reordering_lose_nothing_and_take_nothing_twice() {
    for profile in PROFILES {
        let mut pair = Pair::new(profile);
        let mut rng = Rng::new(3);
        let mut waiting: Vec<u64> = vec![];
        let mut accepted = 0_u64;
        let mut sent = 0_u64;
        for index in 65_000..65_000 + 3 * 65_536 {
            if !rng.percent(2) {
                waiting.push(index);
                sent += 1;
            }
            // bounded: each turn takes one that waits
            while waiting.len() > 20 || (index % 50 == 0 && !waiting.is_empty()) {
                let at = usize::try_from(rng.next()).unwrap() % waiting.len();
                let arriving = waiting.swap_remove(at);
                assert_eq!(pair.rtp(5, arriving), Ok(()), "index {arriving}");
                accepted += 1;
                if rng.percent(5) {
                    assert!(pair.rtp(5, arriving).is_err(), "index {arriving} again");
                }
            }
        }
        assert_eq!(accepted + u64::try_from(waiting.len()).unwrap(), sent);
    }
}

#[test]
fn a_gap_of_30_000_packets_is_followed() {
    for profile in PROFILES {
        let mut pair = Pair::new(profile);
        let mut index = 1000;
        for _ in 0..10 {
            pair.rtp(5, index).unwrap();
            pair.rtp(5, index + 1).unwrap();
            index += 30_000;
        }
    }
}

/// RFC 3711 §3.3.1 takes half a cycle for a step back. Nothing was heard meanwhile, so it is tried as a step ahead.
#[test]
fn a_gap_of_more_than_half_a_cycle_is_followed_once_nothing_was_heard_for_a_second() {
    for profile in PROFILES {
        for (last, next) in [(41_000, 81_000), (1_000, 36_000), (1_000, 65_000), (300_000, 300_000 + 65_000)] {
            let mut pair = Pair::new(profile);
            for index in (0..last).step_by(30_000).chain([last]) {
                pair.rtp(5, index).unwrap();
            }
            assert!(pair.rtp(5, next).is_err(), "{last} {next}");
            pair.now += RESYNC_AFTER;
            pair.rtp(5, next).unwrap();
            for index in next + 1..next + 20 {
                pair.rtp(5, index).unwrap();
            }
            // What was taken before is not taken again, right away or after another silence.
            for _ in 0..2 {
                for replayed in [next, next + 1, last, last - 30_000.min(last)] {
                    assert!(pair.rtp(5, replayed).is_err(), "{replayed} after {next}");
                }
                pair.now += RESYNC_AFTER;
            }
            pair.rtp(5, next + 20).unwrap();
        }
    }
}

#[test]
fn forgeries_of_a_silent_stream_are_tried_at_the_rate_of_unknown_ones() {
    let mut pair = Pair::new(SrtpProfile::AeadAes128Gcm);
    pair.rtp(5, 1).unwrap();
    pair.now += RESYNC_AFTER;
    let forged = [&rtp(5, 30_000)[..], &[0; 16]].concat();
    for _ in 0..TRIAL_BURST {
        assert_eq!(pair.inbound.unprotect_rtp(&forged, pair.now), Err(SrtpError::Unauthentic));
    }
    // None is left for a stream that did go on elsewhere; one comes back with time.
    assert!(pair.rtp(5, 40_000).is_err());
    pair.now += TRIAL_INTERVAL;
    pair.rtp(5, 40_000).unwrap();
}

/// A sender begins in cycle 0; its packets before the wrap were lost.
#[test]
fn the_first_packet_that_comes_may_stand_behind_the_senders_wrap() {
    for profile in PROFILES {
        for (first, expected) in
            [(65_536, true), (65_536 + 32_767, true), (65_536 + 32_768, false), (2 * 65_536, false)]
        {
            let mut pair = Pair::new(profile);
            pair.inbound.announce(5);
            assert_eq!(pair.rtp(5, first).is_ok(), expected, "{first}");
            if expected {
                pair.rtp(5, first + 1).unwrap();
                assert!(pair.rtp(5, first).is_err());
            }
        }
    }
}

#[test]
fn a_stream_that_starts_just_before_its_first_wrap_is_followed() {
    for profile in PROFILES {
        let mut pair = Pair::new(profile);
        for index in [65_535, 65_536, 65_534, 65_538, 65_537] {
            pair.rtp(5, index).unwrap();
        }
    }
}

#[test]
fn a_packet_with_any_byte_changed_is_rejected_and_changes_nothing() {
    for profile in PROFILES {
        for is_known in [false, true] {
            let mut pair = Pair::new(profile);
            pair.inbound.announce(5);
            if is_known {
                pair.rtp(5, 1).unwrap();
                pair.rtcp(5, 1).unwrap();
            }
            let ssrcs = pair.inbound.ssrcs();
            let srtp = pair.rtp.protect_rtp(&rtp(5, 2), 12, 2);
            let srtcp = pair.rtcp.protect_rtcp(&rtcp(5), 2);
            for bit in 0..8 {
                for at in 0..srtp.len() {
                    let mut forged = srtp.clone();
                    forged[at] ^= 1 << bit;
                    assert!(pair.inbound.unprotect_rtp(&forged, pair.now).is_err());
                }
                for at in 0..srtcp.len() {
                    let mut forged = srtcp.clone();
                    forged[at] ^= 1 << bit;
                    assert!(pair.inbound.unprotect_rtcp(&forged, pair.now).is_err());
                }
            }
            assert_eq!(pair.inbound.ssrcs(), ssrcs);
            pair.rtp(5, 2).unwrap();
            pair.rtcp(5, 2).unwrap();
        }
    }
}

/// webrtc-srtp starts the replay window at the first packet it is shown, authentic or not.
#[test]
fn a_forged_first_packet_does_not_shut_out_the_true_ones() {
    for profile in PROFILES {
        let mut pair = Pair::new(profile);
        pair.inbound.announce(5);
        for index in [40_000, 30_000, 0] {
            let mut forged = pair.rtp.protect_rtp(&rtp(5, index), 12, index);
            *forged.last_mut().unwrap() ^= 1;
            assert_eq!(pair.inbound.unprotect_rtp(&forged, pair.now), Err(SrtpError::Unauthentic));
            let index = u32::try_from(index).unwrap() + (1 << 30);
            let mut forged = pair.rtcp.protect_rtcp(&rtcp(5), index);
            forged[9] ^= 1;
            assert_eq!(pair.inbound.unprotect_rtcp(&forged, pair.now), Err(SrtpError::Unauthentic));
        }
        pair.rtp(5, 100).unwrap();
        pair.rtcp(5, 1).unwrap();
    }
}

/// For AES-CM webrtc-srtp returns such a packet without looking at its tag.
#[test]
fn an_srtcp_packet_that_says_it_is_not_encrypted_is_refused() {
    for (profile, trailer) in [
        (SrtpProfile::Aes128CmSha1_80, [0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10].to_vec()),
        (SrtpProfile::AeadAes128Gcm, [[7; 16].to_vec(), vec![0, 0, 0, 9]].concat()),
    ] {
        let mut pair = Pair::new(profile);
        pair.rtcp(5, 1).unwrap();
        let forged = [rtcp(5), trailer].concat();
        assert_eq!(pair.inbound.unprotect_rtcp(&forged, pair.now), Err(SrtpError::NotEncrypted));
    }
}

#[test]
fn every_length_of_rtp_and_rtcp_shaped_datagrams_is_survived_without_state() {
    for profile in PROFILES {
        for is_announced in [false, true] {
            let mut pair = Pair::new(profile);
            let mut rng = Rng::new(5);
            if is_announced {
                pair.inbound.announce(0x0505_0505);
            }
            pair.rtp(9, 1).unwrap();
            pair.rtcp(9, 1).unwrap();
            for len in 0..=1500 {
                for first in [0x80, 0x81, 0x8f, 0x90, 0x9f, 0xa0, 0xb0, 0xbf, 0, 0xff] {
                    let mut datagram = vec![5; len];
                    if len % 2 == 0 {
                        rng.fill(&mut datagram);
                    }
                    for (byte, value) in datagram.iter_mut().zip([first, 201]) {
                        *byte = value;
                    }
                    assert!(pair.inbound.unprotect_rtp(&datagram, pair.now).is_err());
                    assert!(pair.inbound.unprotect_rtcp(&datagram, pair.now).is_err());
                }
            }
            assert_eq!(pair.inbound.ssrcs(), (1, 1));
            assert_eq!(pair.inbound.stats().rtp.crashed, 0);
            assert_eq!(pair.inbound.stats().rtcp.crashed, 0);
            pair.rtp(9, 2).unwrap();
            pair.rtcp(9, 2).unwrap();
        }
    }
}

#[test]
fn a_flood_of_random_ssrcs_keeps_no_state_and_few_are_tried() {
    for profile in PROFILES {
        let mut pair = Pair::new(profile);
        let mut rng = Rng::new(11);
        pair.rtp(5, 1).unwrap();
        for count in 0..200_000_u32 {
            let mut datagram = [0; 60];
            rng.fill(&mut datagram);
            datagram[0] = 0x80;
            let _ = pair.inbound.unprotect_rtp(&datagram, pair.now);
            if count % 1000 == 0 {
                pair.rtp(5, u64::from(count / 1000) + 2).unwrap();
            }
        }
        let stats = pair.inbound.stats().rtp;
        assert_eq!(stats.accepted, 201);
        assert_eq!(stats.unauthentic, u64::from(TRIAL_BURST));
        assert_eq!(stats.not_admitted, 200_000 - u64::from(TRIAL_BURST));
        assert_eq!(pair.inbound.ssrcs(), (1, 0));

        // A true packet of a new SSRC waits for the next trial, an announced one does not.
        assert_eq!(pair.rtp(6, 1), Err(SrtpError::UnknownSsrc));
        pair.inbound.announce(7);
        pair.rtp(7, 1).unwrap();
        pair.now += TRIAL_INTERVAL;
        pair.rtp(6, 1).unwrap();
    }
}

#[test]
fn trials_come_back_with_time_up_to_the_burst() {
    let mut pair = Pair::new(SrtpProfile::AeadAes128Gcm);
    let forged = |ssrc: u32| [&rtp(ssrc, 1)[..], &[0; 16]].concat();
    for wait in [Duration::ZERO, Duration::from_secs(3600)] {
        pair.now += wait;
        for ssrc in 0..TRIAL_BURST {
            assert_eq!(pair.inbound.unprotect_rtp(&forged(ssrc), pair.now), Err(SrtpError::Unauthentic));
        }
        assert_eq!(pair.inbound.unprotect_rtp(&forged(99), pair.now), Err(SrtpError::UnknownSsrc));
    }
}

#[test]
fn at_most_eight_ssrcs_are_kept_and_a_silent_one_gives_way() {
    let mut pair = Pair::new(SrtpProfile::AeadAes128Gcm);
    for ssrc in 0..8 {
        pair.rtp(ssrc, 1).unwrap();
        pair.rtcp(ssrc, 1).unwrap();
    }
    pair.inbound.announce(8);
    assert_eq!(pair.rtp(8, 1), Err(SrtpError::TooManySsrcs));
    assert_eq!(pair.rtcp(8, 1), Err(SrtpError::TooManySsrcs));
    assert_eq!(pair.inbound.ssrcs(), (MAX_SSRCS, MAX_SSRCS));
    pair.now += IDLE_AFTER;
    for ssrc in (0..8).filter(|ssrc| *ssrc != 3) {
        pair.rtp(ssrc, 2).unwrap();
        pair.rtcp(ssrc, 2).unwrap();
    }
    // A forged packet makes nobody give way.
    let forged = [&rtp(8, 1)[..], &[0; 16]].concat();
    assert_eq!(pair.inbound.unprotect_rtp(&forged, pair.now), Err(SrtpError::Unauthentic));
    pair.rtp(8, 1).unwrap();
    pair.rtcp(8, 1).unwrap();
    assert_eq!(pair.inbound.ssrcs(), (MAX_SSRCS, MAX_SSRCS));
    // 3 has gone; all others are busy, so it does not come back yet.
    assert_eq!(pair.rtp(3, 2), Err(SrtpError::TooManySsrcs));
    pair.now += IDLE_AFTER;
    // What it had sent before is not taken again.
    assert!(pair.rtp(3, 1).is_err());
    assert_eq!(pair.rtcp(3, 1), Err(SrtpError::Replayed));
    pair.rtp(3, 2).unwrap();
    pair.rtcp(3, 2).unwrap();
}

#[test]
fn an_ssrc_that_gave_way_comes_back_far_on_and_never_earlier() {
    for profile in PROFILES {
        let mut pair = Pair::new(profile);
        for index in [100, 30_000, 60_000, 70_000] {
            pair.rtp(1, index).unwrap();
        }
        pair.now += IDLE_AFTER;
        (10..18).for_each(|ssrc| pair.rtp(ssrc, 1).unwrap());
        pair.now += IDLE_AFTER;
        for replayed in [100, 60_000, 70_000] {
            assert!(pair.rtp(1, replayed).is_err(), "{replayed}");
        }
        pair.now += IDLE_AFTER;
        pair.rtp(1, 150_000).unwrap();
    }
}

#[test]
fn a_session_takes_72_ssrcs_and_no_more() {
    let mut pair = Pair::new(SrtpProfile::AeadAes128Gcm);
    let most = u32::try_from(MAX_SSRCS + MAX_RETIRED).unwrap();
    for ssrc in 0..most {
        pair.rtp(ssrc, 1).unwrap();
        pair.now += IDLE_AFTER;
    }
    assert_eq!(pair.rtp(most, 1), Err(SrtpError::TooManySsrcs));
    // One that is known may change places with another.
    pair.rtp(0, 2).unwrap();
    assert_eq!(pair.inbound.ssrcs(), (MAX_SSRCS, 0));
}

#[test]
fn packets_protected_with_our_own_key_are_rejected() {
    for profile in PROFILES {
        let mut pair = Pair::new(profile);
        let reflected = pair.outbound.protect_rtcp(&rtcp(5)).unwrap();
        assert_eq!(pair.inbound.unprotect_rtcp(&reflected, pair.now), Err(SrtpError::Unauthentic));
    }
}

#[test]
fn keys_say_their_profile_and_nothing_else() {
    let material = [0xab; 56];
    let keys = Keys::from_client_export(SrtpProfile::AeadAes128Gcm, &material).unwrap();
    assert_eq!(format!("{keys:?}"), "Keys { profile: AeadAes128Gcm, .. }");
    assert!(Keys::from_client_export(SrtpProfile::Aes128CmSha1_80, &material).is_err());
}
