//! The compounds of RTCP that a session sends, and when, as another implementation reads them.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

use std::any::Any;

use ::rtcp::extended_report::ExtendedReport;
use ::rtcp::goodbye::Goodbye;
use ::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use ::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use ::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use ::rtcp::receiver_report::ReceiverReport;
use ::rtcp::reception_report::ReceptionReport;
use ::rtcp::source_description::SourceDescription;
use ::rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;
use ::rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;

use super::super::round_trip::INITIAL_ROUND_TRIP;
use super::super::rtcp::ReportBlock;
use super::super::sdp::Feedback as Negotiated;
use super::*;

const ALL: Negotiated = Negotiated { nack: true, pli: true, fir: true, remb: false, transport_cc: true };

fn track(kind: TrackKind, feedback: Negotiated, reduced_size_rtcp: bool) -> Track {
    let mut track = Track::bare(kind);
    track.ssrc = Some(match kind {
        TrackKind::Video => 100,
        TrackKind::Audio => 200,
    });
    track.feedback = feedback;
    track.reduced_size_rtcp = reduced_size_rtcp;
    track.extensions.transport_cc = Some(3);
    track
}

fn feedback(tracks: &[Track], now: Instant) -> Feedback {
    Feedback::new(tracks.iter(), 2500, now)
}

/// What a compound says, as far as these tests look.
#[derive(Debug, PartialEq)]
enum Said {
    Report(Vec<ReportBlock>),
    Cname,
    ReferenceTime,
    Nack(u32, Vec<u16>),
    Pli(u32),
    Fir(u32, u8),
    Remb(u64, Vec<u32>),
    Transport(TransportLayerCc),
    Bye,
}

impl Said {
    fn of(packet: &(dyn Any + Send + Sync)) -> Self {
        if let Some(report) = packet.downcast_ref::<ReceiverReport>() {
            return Self::Report(report.reports.iter().map(block).collect());
        }
        if let Some(nack) = packet.downcast_ref::<TransportLayerNack>() {
            return Self::Nack(nack.media_ssrc, nack.nacks.iter().flat_map(|pair| pair.packet_list()).collect());
        }
        if let Some(pli) = packet.downcast_ref::<PictureLossIndication>() {
            return Self::Pli(pli.media_ssrc);
        }
        if let Some(fir) = packet.downcast_ref::<FullIntraRequest>() {
            let entry = fir.fir.first().unwrap();
            return Self::Fir(entry.ssrc, entry.sequence_number);
        }
        if let Some(remb) = packet.downcast_ref::<ReceiverEstimatedMaximumBitrate>() {
            return Self::Remb(remb.bitrate as u64, remb.ssrcs.clone());
        }
        if let Some(feedback) = packet.downcast_ref::<TransportLayerCc>() {
            return Self::Transport(feedback.clone());
        }
        if packet.is::<SourceDescription>() {
            return Self::Cname;
        }
        if packet.is::<ExtendedReport>() {
            return Self::ReferenceTime;
        }
        assert!(packet.is::<Goodbye>(), "unexpected packet");
        Self::Bye
    }
}

fn block(report: &ReceptionReport) -> ReportBlock {
    ReportBlock {
        ssrc: report.ssrc,
        fraction_lost: report.fraction_lost,
        cumulative_lost: report.total_lost.cast_signed(),
        highest_sequence: report.last_sequence_number,
        jitter: report.jitter,
        last_sender_report: report.last_sender_report,
        delay_since_last_sender_report: report.delay,
    }
}

fn said(mut compound: &[u8]) -> Vec<Said> {
    let packets = ::rtcp::packet::unmarshal(&mut compound).unwrap();
    packets.iter().map(|packet| Said::of(packet.as_any())).collect()
}

fn drain(feedback: &mut Feedback, now: Instant) -> Vec<Vec<Said>> {
    std::iter::from_fn(|| feedback.poll_compound(now)).map(|compound| said(&compound)).collect()
}

fn ms(start: Instant, millis: u64) -> Instant {
    start + Duration::from_millis(millis)
}

#[test]
fn a_session_begins_with_a_report_and_a_pli() {
    let start = Instant::now();
    let video = track(TrackKind::Video, ALL, true);
    let mut feedback = feedback(&[video], start);
    assert_eq!(
        drain(&mut feedback, start),
        [vec![Said::Report(vec![]), Said::Cname, Said::ReferenceTime, Said::Pli(100)]]
    );
    // Unanswered: PLI each half second, the report each second, FIR after three.
    let mut compounds = Vec::new();
    for half in 1..=4 {
        let now = feedback.poll_timeout();
        assert_eq!(now, ms(start, half * 500));
        compounds.extend(drain(&mut feedback, now));
    }
    assert_eq!(
        compounds,
        [
            vec![Said::Pli(100)],
            vec![Said::Report(vec![]), Said::Cname, Said::ReferenceTime, Said::Pli(100)],
            vec![Said::Fir(100, 1)],
            vec![Said::Report(vec![]), Said::Cname, Said::ReferenceTime, Said::Fir(100, 2)],
        ]
    );
    feedback.notify_keyframe();
    assert_eq!(feedback.ready_at(), ms(start, 3000));
    assert_eq!(feedback.poll_timeout(), ms(start, 3000) + LEEWAY, "a packet may take it along");
    assert_eq!(feedback.stats(TrackKind::Video).pli, 3);
    assert_eq!(feedback.stats(TrackKind::Video).fir, 2);
}

#[test]
fn without_reduced_size_every_compound_begins_with_a_report() {
    let start = Instant::now();
    let video = track(TrackKind::Video, ALL, false);
    let mut feedback = feedback(&[video], start);
    drain(&mut feedback, start);
    feedback.record_transport_sequence(1, start);
    let compounds = drain(&mut feedback, ms(start, 500));
    assert_eq!(compounds.len(), 2);
    for compound in compounds {
        assert_eq!(compound[0], Said::Report(vec![]));
        assert_eq!(compound[1], Said::Cname);
        assert_eq!(compound.len(), 3);
    }
}

#[test]
fn reports_speak_of_every_stream_that_came() {
    let start = Instant::now();
    let tracks =
        [track(TrackKind::Audio, Negotiated::default(), true), track(TrackKind::Video, Negotiated::default(), true)];
    let mut feedback = feedback(&tracks, start);
    drain(&mut feedback, start);
    for n in 0..4 {
        feedback.record_packet(TrackKind::Audio, 200, 10 + n, 960 * u32::from(n), start);
        feedback.record_packet(TrackKind::Video, 100, 20 + 2 * n, 0, start);
    }
    let [compound] = drain(&mut feedback, ms(start, 1000)).try_into().unwrap();
    let Said::Report(blocks) = &compound[0] else {
        panic!("{compound:?}");
    };
    let summary: Vec<_> = blocks.iter().map(|b| (b.ssrc, b.highest_sequence, b.cumulative_lost)).collect();
    assert_eq!(summary, [(200, 13, 0), (100, 26, 3)]);
    assert_eq!(compound[1..], [Said::Cname, Said::ReferenceTime]);
    assert_eq!(feedback.stats(TrackKind::Video).lost, 3);
    // NACK was not negotiated.
    assert_eq!(feedback.stats(TrackKind::Video).nacked, 0);
}

#[test]
fn a_lost_packet_is_asked_for_until_its_retransmission_comes() {
    let start = Instant::now();
    let video = track(TrackKind::Video, ALL, true);
    let mut feedback = feedback(&[video], start);
    drain(&mut feedback, start);
    feedback.notify_keyframe();
    feedback.record_packet(TrackKind::Video, 100, 65_534, 0, start);
    feedback.record_packet(TrackKind::Video, 100, 1, 0, start);
    let first = ms(start, 5);
    assert_eq!(drain(&mut feedback, first), [vec![Said::Nack(100, vec![65_535, 0])]]);
    assert!(feedback.record_retransmission(TrackKind::Video, 65_535, ms(start, 45)));
    assert_eq!(feedback.round_trip(), Some(Duration::from_millis(40)));
    // The other one again, a (measured) round trip later at the earliest; it was scheduled with the initial one.
    assert_eq!(drain(&mut feedback, first + INITIAL_ROUND_TRIP), [vec![Said::Nack(100, vec![0])]]);
    assert!(feedback.record_retransmission(TrackKind::Video, 0, ms(start, 150)));
    assert_eq!(drain(&mut feedback, ms(start, 600)), Vec::<Vec<Said>>::new());
    let stats = feedback.stats(TrackKind::Video);
    assert_eq!((stats.nacked, stats.recovered, stats.given_up), (3, 2, 0));
}

#[test]
fn a_picture_that_is_given_up_is_asked_for_as_a_keyframe_at_once() {
    let start = Instant::now();
    let tracks = [track(TrackKind::Audio, ALL, true), track(TrackKind::Video, ALL, true)];
    for (kind, ssrc, expected) in [(TrackKind::Video, 100, vec![Said::Pli(100)]), (TrackKind::Audio, 200, vec![])] {
        let mut feedback = feedback(&tracks, start);
        drain(&mut feedback, start);
        feedback.notify_keyframe();
        feedback.set_max_wait(kind, Duration::from_millis(120));
        let lost_at = ms(start, 600);
        feedback.record_packet(kind, ssrc, 10, 0, lost_at);
        feedback.record_packet(kind, ssrc, 12, 0, lost_at);
        let said = |feedback: &mut Feedback, after| {
            drain(feedback, lost_at + Duration::from_millis(after)).into_iter().flatten().collect::<Vec<_>>()
        };
        assert_eq!(said(&mut feedback, 5), [Said::Nack(ssrc, vec![11])]);
        assert_eq!(said(&mut feedback, 119), []);
        assert_eq!(feedback.poll_timeout(), lost_at + Duration::from_millis(120));
        assert_eq!(said(&mut feedback, 120), expected);
        assert_eq!(feedback.stats(kind).given_up, 1);
    }
}

#[test]
fn transport_feedback_comes_every_50_ms_while_packets_do() {
    let start = Instant::now();
    let video = track(TrackKind::Video, ALL, true);
    let mut feedback = feedback(&[video], start);
    feedback.notify_keyframe();
    drain(&mut feedback, start);
    let mut sent_at = Vec::new();
    let mut reported = 0;
    for n in 0..300_u16 {
        let now = ms(start, u64::from(n));
        feedback.record_transport_sequence(n, now);
        for compound in drain(&mut feedback, now) {
            if let [Said::Transport(transport)] = &compound[..] {
                sent_at.push(n);
                reported += usize::from(transport.packet_status_count);
                assert_eq!(transport.media_ssrc, 100);
            }
        }
    }
    assert_eq!(sent_at, [50, 100, 150, 200, 250]);
    assert_eq!(reported, 251);
    // Silence: nothing to say but the report.
    drain(&mut feedback, ms(start, 350));
    assert_eq!(feedback.ready_at(), ms(start, 1000));
}

#[test]
fn remb_tells_the_limit_twice_a_second_once_beside_transport_feedback_and_at_once_when_it_changes() {
    let start = Instant::now();
    let only_remb = Negotiated { remb: true, ..Negotiated::default() };
    for (transport_cc, sent_at) in [(false, vec![0, 500, 1000, 1500, 1600, 2100]), (true, vec![0, 1000, 1600, 2600])] {
        let tracks = [track(TrackKind::Video, Negotiated { transport_cc, ..only_remb }, true)];
        let mut feedback = feedback(&tracks, start);
        let mut rembs = Vec::new();
        for millis in 0..2_700 {
            let now = ms(start, millis);
            if millis == 1_600 {
                feedback.set_max_bitrate(800, now);
            }
            for said in drain(&mut feedback, now).into_iter().flatten() {
                if let Said::Remb(bitrate_bps, ssrcs) = said {
                    assert_eq!(ssrcs, [100]);
                    assert_eq!(bitrate_bps, if millis < 1_600 { 2_500_000 } else { 800_000 });
                    rembs.push(millis);
                }
            }
        }
        rembs.retain(|millis| *millis < 2_600 || transport_cc);
        assert_eq!(rembs, sent_at);
    }
}

#[test]
fn two_numbers_in_sequence_far_away_start_another_run_and_one_does_not() {
    let start = Instant::now();
    let video = track(TrackKind::Video, ALL, true);
    let mut feedback = feedback(&[video], start);
    feedback.record_packet(TrackKind::Video, 100, 10, 0, start);
    feedback.record_packet(TrackKind::Video, 100, 40_000, 0, start);
    feedback.record_packet(TrackKind::Video, 100, 11, 0, start);
    assert_eq!(feedback.stats(TrackKind::Video).lost, 0);
    for sequence in [40_000, 40_001, 40_002, 40_003] {
        feedback.record_packet(TrackKind::Video, 100, sequence, 0, start);
    }
    let stats = feedback.stats(TrackKind::Video);
    assert_eq!((stats.lost, stats.given_up), (0, 0));
    // Another SSRC is another run at once.
    feedback.record_packet(TrackKind::Video, 101, 7, 0, start);
    feedback.record_packet(TrackKind::Video, 101, 8, 0, start);
    assert_eq!(feedback.stats(TrackKind::Video).lost, 0);
    assert_eq!(feedback.kind_of(101), Some(TrackKind::Video));
    assert_eq!(feedback.kind_of(100), None);
}

#[test]
fn a_session_ends_with_report_cname_and_bye() {
    let start = Instant::now();
    let audio = track(TrackKind::Audio, Negotiated::default(), true);
    let mut feedback = feedback(&[audio], start);
    assert_eq!(said(&feedback.bye(start)), [Said::Report(vec![]), Said::Cname, Said::ReferenceTime, Said::Bye]);
}
