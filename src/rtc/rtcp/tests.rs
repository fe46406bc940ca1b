//! RTCP against the `rtcp` crate as another implementation, and hostile compounds.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

//! The `rtcp` crate, which webrtc-srtp links anyway, is the other implementation here: what we write it must read,
//! and what it writes we must read.

use rtcp::goodbye::Goodbye;
use rtcp::payload_feedbacks::full_intra_request::{FirEntry, FullIntraRequest};
use rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtcp::receiver_report::ReceiverReport;
use rtcp::reception_report::ReceptionReport;
use rtcp::source_description::{SdesType, SourceDescription};
use rtcp::transport_feedbacks::transport_layer_cc::{PacketStatusChunk, SymbolTypeTcc, TransportLayerCc};
use rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use webrtc_marshal::marshal::{Marshal, Unmarshal};

use super::extended::write_reference_time;
use super::transport_cc::{DELTA_MICROS, MAX_STATUSES, TransportFeedback};
use super::*;
use crate::rtc::bytes::Writer;

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut out = Writer::with_capacity(64);
    write(&mut out);
    out.into_vec()
}

fn read_by_the_crate<T: Unmarshal>(bytes: &[u8]) -> T {
    T::unmarshal(&mut &bytes[..]).unwrap()
}

fn only(bytes: &[u8]) -> Packet<'_> {
    let mut packets = Compound::new(bytes);
    let packet = packets.next().unwrap().unwrap();
    assert!(packets.next().is_none());
    packet
}

#[test]
fn a_receiver_report_means_the_same_to_another_implementation() {
    let block = ReportBlock {
        ssrc: 0x902f_9e2e,
        fraction_lost: 55,
        cumulative_lost: 74_565,
        highest_sequence: 0x3_1234,
        jitter: 273,
        last_sender_report: 0x9f36_432a,
        delay_since_last_sender_report: 150_137,
    };
    let bytes = written(|out| write_receiver_report(out, 7, &[block, block]));
    let report: ReceiverReport = read_by_the_crate(&bytes);
    let expected = ReceptionReport {
        ssrc: 0x902f_9e2e,
        fraction_lost: 55,
        total_lost: 74_565,
        last_sequence_number: 0x3_1234,
        jitter: 273,
        last_sender_report: 0x9f36_432a,
        delay: 150_137,
    };
    assert_eq!(report.ssrc, 7);
    assert_eq!(report.reports, [expected.clone(), expected]);
    let Packet::ReceiverReport(7, blocks) = only(&bytes) else {
        panic!("not an RR");
    };
    assert_eq!(blocks.collect::<Vec<_>>(), [block, block]);
}

#[test]
fn a_negative_cumulative_loss_keeps_its_sign_in_24_bits() {
    let block = ReportBlock {
        ssrc: 1,
        fraction_lost: 0,
        cumulative_lost: -3,
        highest_sequence: 0,
        jitter: 0,
        last_sender_report: 0,
        delay_since_last_sender_report: 0,
    };
    let bytes = written(|out| write_receiver_report(out, 7, &[block]));
    assert_eq!(bytes[13..16], [0xff, 0xff, 0xfd]);
    let Packet::ReceiverReport(_, mut blocks) = only(&bytes) else {
        panic!("not an RR");
    };
    assert_eq!(blocks.next(), Some(block));
}

#[test]
fn requests_for_keyframes_mean_the_same_to_another_implementation() {
    let bytes = written(|out| write_pli(out, 1, 2));
    let pli: PictureLossIndication = read_by_the_crate(&bytes);
    assert_eq!((pli.sender_ssrc, pli.media_ssrc), (1, 2));

    let bytes = written(|out| write_fir(out, 1, 2, 200));
    let fir: FullIntraRequest = read_by_the_crate(&bytes);
    let entry = FirEntry { ssrc: 2, sequence_number: 200 };
    assert_eq!((fir.sender_ssrc, fir.fir), (1, vec![entry]));
}

#[test]
fn a_nack_names_every_lost_packet_once_and_across_the_wrap() {
    for lost in [
        vec![5],
        vec![5, 6, 7],
        vec![10, 26, 27, 43],
        vec![65_530, 65_535, 0, 1, 9, 10],
        (100..200).collect(),
        (0..40).map(|n| n * 100).collect(),
    ] {
        let bytes = written(|out| {
            assert_eq!(write_nack(out, 1, 2, &lost), lost.len());
        });
        let nack: TransportLayerNack = read_by_the_crate(&bytes);
        assert_eq!((nack.sender_ssrc, nack.media_ssrc), (1, 2));
        let read: Vec<u16> = nack.nacks.iter().flat_map(|n| n.packet_list()).collect();
        assert_eq!(read, lost);
    }
}

#[test]
fn a_nack_is_bounded_and_says_how_far_it_got() {
    let lost: Vec<u16> = (0..1000).map(|n| n * 20).collect();
    let bytes = written(|out| {
        assert_eq!(write_nack(out, 1, 2, &lost), MAX_NACK_PAIRS);
    });
    assert_eq!(bytes.len(), 12 + 4 * MAX_NACK_PAIRS);
}

#[test]
fn remb_means_the_same_to_another_implementation() {
    for bitrate in [0, 1, 262_143, 262_144, 2_500_000, 4_000_000, 100_000_000] {
        let bytes = written(|out| write_remb(out, 1, bitrate, &[72, 73]));
        let remb: ReceiverEstimatedMaximumBitrate = read_by_the_crate(&bytes);
        assert_eq!(remb.ssrcs, [72, 73]);
        if bitrate <= 1 {
            // The other implementation takes these for something else.
            assert_eq!(bytes[16..20], [2, 0, 0, bitrate as u8]);
            continue;
        }
        let (theirs, ours) = (f64::from(remb.bitrate), bitrate as f64);
        // 18 significant bits, rounded down: within 2^-17.
        assert!(theirs <= ours && ours - theirs <= ours / 131_072.0, "{theirs} for {ours}");
    }
}

#[test]
fn cname_and_bye_mean_the_same_to_another_implementation() {
    for cname in ["", "a", "ab", "abc", "abcd", "guest-relay"] {
        let bytes = written(|out| write_cname(out, 9, cname));
        let sdes: SourceDescription = read_by_the_crate(&bytes);
        let chunk = sdes.chunks.first().unwrap();
        assert_eq!(chunk.source, 9);
        let item = chunk.items.first().unwrap();
        assert_eq!(item.sdes_type, SdesType::SdesCname);
        assert_eq!(item.text, cname.as_bytes());
    }
    let bytes = written(|out| write_bye(out, 9));
    let bye: Goodbye = read_by_the_crate(&bytes);
    assert_eq!(bye.sources, [9]);
    let Packet::Bye(sources) = only(&bytes) else {
        panic!("not a BYE");
    };
    assert_eq!(sources.collect::<Vec<_>>(), [9]);
}

#[test]
fn a_sender_report_of_another_implementation_is_read() {
    let report = rtcp::sender_report::SenderReport {
        ssrc: 0x902f_9e2e,
        ntp_time: 0xda8b_d1fc_dddd_a05a,
        rtp_time: 0xaaf4_edd5,
        packet_count: 1,
        octet_count: 2,
        ..Default::default()
    };
    let bytes = report.marshal().unwrap();
    let Packet::SenderReport(read, blocks) = only(&bytes) else {
        panic!("not an SR");
    };
    assert_eq!(
        read,
        SenderReport {
            ssrc: 0x902f_9e2e,
            ntp_time: 0xda8b_d1fc_dddd_a05a,
            rtp_time: 0xaaf4_edd5,
            packet_count: 1,
            octet_count: 2
        }
    );
    assert_eq!(blocks.count(), 0);
}

fn feedback(statuses: Vec<Option<i16>>) -> TransportFeedback {
    TransportFeedback {
        sender_ssrc: 1,
        media_ssrc: 2,
        base_sequence: 65_530,
        reference_time: -5,
        feedback_count: 250,
        statuses,
    }
}

/// What the other implementation makes of the chunks and deltas: a delta in microseconds per received packet.
fn statuses_read_by_the_crate(feedback: &TransportLayerCc) -> Vec<Option<i64>> {
    let mut symbols: Vec<SymbolTypeTcc> = Vec::new();
    for chunk in &feedback.packet_chunks {
        match chunk {
            PacketStatusChunk::RunLengthChunk(run) => {
                let len = usize::from(run.run_length);
                symbols.extend(std::iter::repeat_n(run.packet_status_symbol, len));
            }
            PacketStatusChunk::StatusVectorChunk(vector) => {
                symbols.extend(&vector.symbol_list);
            }
        }
    }
    symbols.truncate(usize::from(feedback.packet_status_count));
    let mut deltas = feedback.recv_deltas.iter();
    symbols
        .into_iter()
        .map(|symbol| (symbol != SymbolTypeTcc::PacketNotReceived).then(|| deltas.next().unwrap().delta))
        .collect()
}

#[test]
fn transport_feedback_means_the_same_to_another_implementation() {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut cases = vec![
        vec![Some(0)],
        vec![Some(1); 14],
        vec![Some(1); 15],
        vec![Some(-1); 7],
        vec![Some(300); 8],
        [vec![Some(1)], vec![None; 100], vec![Some(255), Some(256)]].concat(),
        vec![Some(i16::MAX), Some(i16::MIN), None, Some(0)],
        vec![Some(1); MAX_STATUSES],
    ];
    for _ in 0..2000 {
        let len = 1 + next() % 60;
        let loss = next() % 4;
        let statuses = (0..len).map(|_| match next() % 8 {
            n if n < loss => None,
            7 => Some(next() as i16),
            _ => Some((next() % 256) as i16),
        });
        cases.push(statuses.collect());
    }
    for statuses in cases {
        let ours = feedback(statuses);
        let bytes = written(|out| ours.write_to(out));
        assert!(bytes.len().is_multiple_of(4));
        let theirs: TransportLayerCc = read_by_the_crate(&bytes);
        assert_eq!((theirs.sender_ssrc, theirs.media_ssrc), (1, 2));
        assert_eq!(theirs.base_sequence_number, 65_530);
        assert_eq!(theirs.fb_pkt_count, 250);
        assert_eq!(theirs.reference_time, 0xff_fffb);
        let expected: Vec<Option<i64>> =
            ours.statuses.iter().map(|status| status.map(|delta| i64::from(delta) * DELTA_MICROS)).collect();
        assert_eq!(statuses_read_by_the_crate(&theirs), expected);
    }
}

#[test]
fn runs_and_vectors_are_the_ones_of_the_draft() {
    // One word each, after 20 bytes: a run of 20 small deltas; 14 one-bit symbols; 7 two-bit symbols.
    let chunk = |statuses: Vec<Option<i16>>| {
        let bytes = written(|out| feedback(statuses).write_to(out));
        u16::from_be_bytes([bytes[20], bytes[21]])
    };
    assert_eq!(chunk(vec![Some(4); 20]), 0x2014);
    let alternating: Vec<_> = (0..14).map(|n| (n % 2 == 0).then_some(4)).collect();
    assert_eq!(chunk(alternating), 0b10_10101010101010);
    let mixed = vec![Some(4), None, Some(400), Some(4), None, Some(-4), Some(4)];
    assert_eq!(chunk(mixed), 0b11_01_00_10_01_00_10_01);
}

#[test]
fn hostile_compounds_end_in_an_error_and_never_in_a_panic() {
    let truncated = |need, have| RtcpError::Truncated(Truncated { need, have });
    for (name, bytes, error) in [
        ("header cut", vec![0x80, 200, 0], truncated(2, 1)),
        ("length lies", vec![0x80, 201, 0, 9, 0, 0, 0, 1], truncated(36, 4)),
        ("version 1", vec![0x40, 201, 0, 1, 0, 0, 0, 1], RtcpError::Version(1)),
        ("count lies", vec![0x9f, 201, 0, 1, 0, 0, 0, 1], truncated(744, 0)),
        ("BYE of 31", vec![0x9f, 203, 0, 1, 0, 0, 0, 1], truncated(124, 4)),
        ("padding 0", vec![0xa0, 201, 0, 1, 0, 0, 0, 0], RtcpError::Padding(0)),
        ("padding 5", vec![0xa0, 201, 0, 1, 0, 0, 0, 5], RtcpError::Padding(5)),
    ] {
        let packets: Vec<_> = Compound::new(&bytes).collect();
        assert_eq!(packets.last().unwrap().clone().unwrap_err(), error, "{name}");
        assert_eq!(packets.len(), 1, "{name}");
    }
}

#[test]
fn a_compound_of_370_empty_reports_is_370_packets() {
    let bytes = [0x80, 201, 0, 1, 0, 0, 0, 1].repeat(370);
    assert_eq!(Compound::new(&bytes).filter(Result::is_ok).count(), 370);
}

#[test]
fn unknown_packets_are_stepped_over() {
    // APP, XR, PSFB of an unknown kind, SDES without end, then a BYE.
    let mut bytes = vec![0x80, 204, 0, 1, 0, 0, 0, 1];
    bytes.extend([0x80, 207, 0, 2, 0, 0, 0, 1, 4, 0, 0xff, 0xff]);
    bytes.extend([0x9e, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]);
    bytes.extend([0x9f, 202, 0, 2, 0, 0, 0, 1, 1, 0xff, 0x61, 0x61]);
    bytes.extend(written(|out| write_bye(out, 1)));
    let packets: Vec<_> = Compound::new(&bytes).map(Result::unwrap).collect();
    assert_eq!(packets.len(), 5);
    assert!(matches!(packets[4], Packet::Bye(_)));
}

#[test]
fn every_length_first_byte_and_type_is_survived() {
    for len in 0..=1500_usize {
        for first in [0x80, 0x81, 0x8f, 0x9f, 0xa0, 0xbf, 0x00, 0xff] {
            for packet_type in [200, 201, 202, 203, 204, 205, 206, 207, 0, 255] {
                for fill in [0x00, 0x5a, 0xff] {
                    let mut bytes = vec![fill; len];
                    let words = (len / 4).saturating_sub(1) as u16;
                    let [high, low] = words.to_be_bytes();
                    for (to, from) in bytes.iter_mut().zip([first, packet_type, high, low]) {
                        *to = from;
                    }
                    for packet in Compound::new(&bytes).flatten() {
                        let items = match packet {
                            Packet::SenderReport(_, blocks) | Packet::ReceiverReport(_, blocks) => blocks.count(),
                            Packet::Bye(ssrcs) => ssrcs.count(),
                            _ => 0,
                        };
                        assert!(items <= 17 * 1500 / 4);
                    }
                }
            }
        }
    }
}

#[test]
fn reference_times_and_their_answers_mean_the_same_to_another_implementation() {
    use rtcp::extended_report::{DLRRReport, DLRRReportBlock, ExtendedReport, ReceiverReferenceTimeReportBlock};
    let bytes = written(|out| write_reference_time(out, 7, 0xda8b_d1fc_dddd_a05a));
    let report: ExtendedReport = read_by_the_crate(&bytes);
    assert_eq!(report.sender_ssrc, 7);
    let [block] = &report.reports[..] else { panic!("{report:?}") };
    let block = block.as_any().downcast_ref::<ReceiverReferenceTimeReportBlock>().unwrap();
    assert_eq!(block.ntp_timestamp, 0xda8b_d1fc_dddd_a05a);

    let entry = |ssrc| DLRRReport { ssrc, last_rr: 0xd1fc_dddd, dlrr: 65_536 };
    let answer = ExtendedReport {
        sender_ssrc: 9,
        reports: vec![
            Box::new(ReceiverReferenceTimeReportBlock { ntp_timestamp: 1 }),
            Box::new(DLRRReportBlock { reports: vec![entry(7), entry(8)] }),
            Box::new(DLRRReportBlock { reports: vec![entry(7)] }),
        ],
    };
    let bytes = answer.marshal().unwrap();
    let Packet::ExtendedReport(answers) = only(&bytes) else { panic!("not an XR") };
    let read: Vec<_> = answers.map(|answer| (answer.ssrc, answer.last_reference_time, answer.delay)).collect();
    assert_eq!(read, [7, 8, 7].map(|ssrc| (ssrc, 0xd1fc_dddd, 65_536)));
}

#[test]
fn extended_reports_whose_lengths_lie_end_where_they_do() {
    let answer = [5, 0, 0, 3, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2];
    for (name, blocks, answers) in [
        ("nothing", vec![], 0),
        ("one", answer.to_vec(), 1),
        ("half an entry", vec![5, 0, 0, 1, 0, 0, 0, 7], 0),
        ("an entry and a half", [&[5, 0, 0, 4][..], &answer[4..], &[0; 4]].concat(), 1),
        ("beyond the end", [&answer[..], &[5, 0, 0xff, 0xff, 0, 0, 0, 7]].concat(), 1),
        ("behind another block", [&[4, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8][..], &answer].concat(), 1),
        ("empty blocks without end", [5, 0, 0, 0].repeat(300), 0),
    ] {
        let words = u16::try_from(blocks.len() / 4 + 1).unwrap().to_be_bytes();
        let bytes = [&[0x80, 207, words[0], words[1], 0, 0, 0, 9][..], &blocks].concat();
        let Packet::ExtendedReport(found) = only(&bytes) else { panic!("not an XR") };
        assert_eq!(found.count(), answers, "{name}");
    }
}
