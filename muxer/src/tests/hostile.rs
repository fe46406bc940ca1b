//! Nothing that arrives breaks what the muxer promises. Packets are made of a stream that works, with seeded damage.

use super::*;

/// xorshift64*, so that a seed gives the same run everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 33) % bound
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).expect("a byte")
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(u64::try_from(len).expect("small"))).expect("small")
    }
}

/// Checks what holds for every output.
#[derive(Default)]
struct Promises {
    last_video: Option<i64>,
    last_audio: Option<i64>,
    has_avcc: bool,
    opus_heads: u32,
    shut: bool,
    body: Vec<u8>,
}

impl Promises {
    fn drain(&mut self, muxer: &mut Muxer) {
        while let Some(output) = muxer.poll_output(&mut self.body) {
            match output {
                Output::KeyframeNeeded(_) => self.shut = true,
                Output::Recovered => self.shut = false,
                Output::Tag(tag) => self.check(&tag),
            }
            self.body.clear();
        }
    }

    fn check(&mut self, tag: &Tag) {
        let millis = tag.dts.millis();
        assert!(millis >= 0);
        let last = match tag.frame {
            Frame::Metadata => return,
            Frame::VideoSequenceHeader => return self.has_avcc = true,
            Frame::AudioSequenceHeader => return self.opus_heads += 1,
            Frame::Keyframe | Frame::InterFrame => {
                assert!(self.has_avcc, "a picture before its sequence header");
                assert!(tag.frame == Frame::Keyframe || !self.shut, "a picture behind a loss");
                self.shut = false;
                self.check_picture();
                &mut self.last_video
            }
            Frame::Audio => {
                assert_eq!(self.opus_heads, 1);
                let packet = self.body.strip_prefix(b"\x91Opus").expect("CodedFrames");
                assert!(opus::OpusPacket::parse(packet).is_ok());
                &mut self.last_audio
            }
        };
        assert!(last.is_none_or(|last| last < millis), "{:?} at {millis} after {last:?}", tag.frame);
        *last = Some(millis);
    }

    /// Every NAL unit is whole, and there are no more than servers take.
    fn check_picture(&self) {
        let mut reader = bytes::Reader::new(&self.body);
        reader.take(flv::VIDEO_HEADER_LEN).expect("the header");
        let mut units = 0;
        while !reader.is_empty() {
            let len = reader.u32().expect("a length");
            let nal = reader.take(usize::try_from(len).expect("32 bits")).expect("the whole unit");
            assert!(nal.first().is_some_and(|header| header & 0x80 == 0));
            units += 1;
        }
        assert!((1..=MAX_UNITS).contains(&units));
    }
}

/// Payloads of a picture, as browsers send it: parameter sets and IDR in one STAP-A, larger pictures in FU-As.
fn picture(n: u64) -> Vec<Vec<u8>> {
    if n.is_multiple_of(10) {
        let mut payloads = vec![fixtures::stap_a(&[fixtures::SPS, fixtures::PPS])];
        payloads.extend(fixtures::fu_a(&[fixtures::IDR, &[0x42; 900]].concat(), 200));
        payloads
    } else if n.is_multiple_of(3) {
        fixtures::fu_a(&[fixtures::P, &[0x42; 500]].concat(), 200)
    } else {
        vec![fixtures::P.to_vec()]
    }
}

fn rtp(payload_type: u8, marker: bool, sequence_number: u16, rtp_time: u32, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80, payload_type | if marker { 0x80 } else { 0 }];
    bytes.extend_from_slice(&sequence_number.to_be_bytes());
    bytes.extend_from_slice(&rtp_time.to_be_bytes());
    bytes.extend_from_slice(&ssrc.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Ten minutes of a guest, each datagram damaged with a chance of one in `rarity`.
fn run(seed: u64, rarity: u64) -> Stats {
    let mut random = Random(seed);
    let mut muxer = Muxer::new(Config {
        video: Some(VideoConfig { keep_keyframe: true, ..VideoConfig::default() }),
        ..Config::default()
    });
    let mut promises = Promises::default();
    let mut delayed: Vec<Vec<u8>> = Vec::new();
    let mut video_seq = 0u16;
    for n in 0..18_000u64 {
        let now = MediaTime::from_micros(i64::try_from(n * 33_333).expect("ten minutes"));
        let mut datagrams = Vec::new();
        let payloads = picture(n);
        for (index, payload) in payloads.iter().enumerate() {
            let [.., a, b, c, d] = (n * 3000).to_be_bytes();
            let marker = index + 1 == payloads.len();
            datagrams.push(rtp(96, marker, video_seq, u32::from_be_bytes([a, b, c, d]), 1, payload));
            video_seq = video_seq.wrapping_add(1);
        }
        let [.., high, low] = n.to_be_bytes();
        let [.., a, b, c, d] = (n * 1600).to_be_bytes();
        datagrams.push(rtp(111, false, u16::from_be_bytes([high, low]), u32::from_be_bytes([a, b, c, d]), 2, OPUS));
        if random.below(rarity) == 0 {
            datagrams.append(&mut delayed);
        }
        for mut datagram in datagrams {
            if random.below(rarity) == 0 {
                match random.below(8) {
                    0 => continue,
                    1 => {
                        let place = random.index(datagram.len());
                        datagram[place] = random.byte();
                    }
                    2 => datagram.truncate(random.index(datagram.len())),
                    3 => datagram = (0..random.below(60)).map(|_| random.byte()).collect(),
                    4 => {
                        delayed.push(datagram);
                        delayed.truncate(1000);
                        continue;
                    }
                    5 => delayed.push(datagram.clone()),
                    6 => (0..4).for_each(|_| {
                        let place = random.index(datagram.len());
                        datagram[place] ^= 1 << random.below(8);
                    }),
                    _ => datagram.splice(12.., (0..random.below(40)).map(|_| random.byte())).for_each(drop),
                }
            }
            if let Ok(packet) = RtpPacket::parse(&datagram) {
                let kind = if packet.payload_type == 111 { TrackKind::Audio } else { TrackKind::Video };
                muxer.handle_rtp(kind, &packet, now);
                promises.drain(&mut muxer);
            }
        }
        match random.below(200) {
            0 => {
                let report = SenderReport { ntp_time: random.next(), rtp_time: u32::from(random.byte()) << 24 };
                muxer.handle_sender_report(TrackKind::Audio, report, now);
            }
            1 => {
                let report = SenderReport { ntp_time: random.next(), rtp_time: u32::from(random.byte()) << 24 };
                muxer.handle_sender_report(TrackKind::Video, report, now);
            }
            2 => {
                if let Some(at) = muxer.timeline_at(now) {
                    muxer.fill_silence(at);
                    muxer.repeat_keyframe(at);
                }
            }
            3 => muxer.replace_source(),
            _ => {}
        }
        if muxer.poll_timeout().is_some_and(|timeout| timeout <= now) {
            muxer.handle_timeout(now);
        }
        promises.drain(&mut muxer);
    }
    muxer.flush();
    promises.drain(&mut muxer);
    muxer.stats()
}

#[test]
fn whatever_arrives_the_promises_hold() {
    for (seed, rarity) in [(1, 2), (2, 5), (3, 20), (4, 100), (5, 1000)] {
        let stats = run(seed * 0x9e37_79b9, rarity);
        assert!(stats.video.packets.packets > 10_000, "seed {seed}");
        assert_eq!(stats.overflow, 0, "seed {seed}");
        if rarity >= 20 {
            assert!(stats.video.frames > 1000 && stats.audio.frames > 10_000, "seed {seed}: {stats:#?}");
        }
    }
}

#[test]
fn an_undamaged_stream_comes_out_whole() {
    let stats = run(77, u64::MAX);
    assert!(stats.video.keyframes > 1500, "{stats:#?}");
    assert_eq!(stats.video.dropped.loss + stats.video.dropped.malformed + stats.video.packets.lost, 0);
}

#[test]
fn random_bytes_are_read_in_bounds_by_every_parser() {
    let mut random = Random(0x5eed);
    for _ in 0..200_000 {
        let mut bytes: Vec<u8> = (0..random.below(80)).map(|_| random.byte() & random.byte()).collect();
        if let Some(first) = bytes.first_mut() {
            *first = [0x67, 0x68, 0x80, 0x90, 0xfb, 0x65][usize::from(*first) % 6];
        }
        if let Ok(sps) = sps::Sps::parse(&bytes) {
            assert!((1..=sps::MAX_DIMENSION).contains(&sps.width) && (1..=sps::MAX_DIMENSION).contains(&sps.height));
        }
        let _ = sps::pps_ids(&bytes);
        let _ = sps::slice_ids(&bytes);
        if let Ok(packet) = opus::OpusPacket::parse(&bytes) {
            assert!((120..=opus::MAX_SAMPLES).contains(&packet.samples));
        }
        if let Ok(packet) = RtpPacket::parse(&bytes) {
            assert!(packet.extensions().count() <= 80);
            assert!(packet.payload.len() <= bytes.len());
        }
        let _ = amf0::Value::parse(&mut bytes::Reader::new(&bytes));
    }
}
