//! Both tracks of a guest through the muxer, which keeps what its crate page promises.
//!
//! Input: an rtptools dump (the golden recordings are seeds), read leniently:
//! payload types 97 and 111 are audio, every other one is video; time does not go back.
#![no_main]

use guest_relay_muxer::{
    Config, Frame, MediaTime, Muxer, Output, RtpPacket, SenderReport, TagKind, TrackKind,
};
use libfuzzer_sys::fuzz_target;

const FILE_HEADER_LEN: usize = 16;
const RECORD_HEADER_LEN: usize = 8;

/// What has come out so far.
#[derive(Default)]
struct Outlet {
    body: Vec<u8>,
    last_audio: Option<i64>,
    last_video: Option<i64>,
    is_open: bool,
}

impl Outlet {
    fn drain(&mut self, muxer: &mut Muxer) {
        loop {
            self.body.clear();
            match muxer.poll_output(&mut self.body) {
                Some(Output::Tag(tag)) => {
                    assert_eq!(tag.len, self.body.len());
                    assert_eq!(tag.kind, tag.frame.kind());
                    let last = match tag.frame {
                        Frame::Keyframe | Frame::InterFrame => &mut self.last_video,
                        Frame::Audio => &mut self.last_audio,
                        _ => continue,
                    };
                    let dts = tag.dts.millis();
                    assert!(
                        last.is_none_or(|last| last < dts),
                        "dts {dts} ms after {last:?} ms"
                    );
                    *last = Some(dts);
                    if tag.kind == TagKind::Video {
                        self.is_open |= tag.frame == Frame::Keyframe;
                        assert!(
                            self.is_open,
                            "a picture that refers to one that did not go out"
                        );
                    }
                }
                Some(Output::KeyframeNeeded(_)) => self.is_open = false,
                Some(Output::Recovered) => self.is_open = true,
                None => return,
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let records = match input.iter().position(|&byte| byte == b'\n') {
        Some(end) if input.starts_with(b"#!") => {
            input.get(end + 1 + FILE_HEADER_LEN..).unwrap_or_default()
        }
        _ => input,
    };
    let mut muxer = Muxer::new(Config::default());
    let mut outlet = Outlet::default();
    let mut rest = records;
    let mut arrival = MediaTime::ZERO;
    while let Some((header, after)) = rest.split_first_chunk::<RECORD_HEADER_LEN>() {
        let [length_high, length_low, plen_high, plen_low, offset @ ..] = *header;
        let length = usize::from(u16::from_be_bytes([length_high, length_low]))
            .saturating_sub(RECORD_HEADER_LEN);
        let (datagram, after) = after.split_at(length.min(after.len()));
        rest = after;
        arrival = arrival.max(MediaTime::from_millis(i64::from(u32::from_be_bytes(
            offset,
        ))));
        while let Some(due) = muxer.poll_timeout().filter(|&due| due <= arrival) {
            muxer.handle_timeout(due);
            outlet.drain(&mut muxer);
            assert!(
                muxer.poll_timeout() != Some(due),
                "a timeout that stays due"
            );
        }
        if [plen_high, plen_low] == [0, 0] {
            if let Some(ntp_time) = datagram.get(8..16).and_then(|bytes| bytes.try_into().ok()) {
                let rtp_time = datagram.get(16..20).and_then(|bytes| bytes.try_into().ok());
                let report = SenderReport {
                    ntp_time: u64::from_be_bytes(ntp_time),
                    rtp_time: u32::from_be_bytes(rtp_time.unwrap_or_default()),
                };
                let kind = if datagram.len() % 2 == 0 {
                    TrackKind::Video
                } else {
                    TrackKind::Audio
                };
                muxer.handle_sender_report(kind, report, arrival);
            }
        } else if let Ok(packet) = RtpPacket::parse(datagram) {
            let kind = match packet.payload_type {
                97 | 111 => TrackKind::Audio,
                _ => TrackKind::Video,
            };
            muxer.handle_rtp(kind, &packet, arrival);
        }
        outlet.drain(&mut muxer);
    }
    muxer.flush();
    outlet.drain(&mut muxer);
});
