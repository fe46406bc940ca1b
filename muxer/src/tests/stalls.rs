//! Sound whose clock stands still while real time goes on, beside sound that the network held back.

use super::*;

/// A guest whose microphone and camera run, in steps of 20 ms of real time. Everything takes 10 ms.
struct Live {
    guest: Guest,
    now: i64,
    /// Packets of sound so far, which their clock counts; and those that the network holds.
    said: i64,
    held: Vec<(u16, i64)>,
    camera: bool,
    /// The caller fills silence, as a relay does, when sound has not come for so long.
    bridged_after: Option<i64>,
    heard: i64,
    spoken: u64,
}

impl Live {
    fn new(camera: bool) -> Self {
        let mut guest = Guest::with_both();
        if camera {
            guest.video(0, &fixtures::stap_a(&[fixtures::SPS, fixtures::PPS, fixtures::IDR]));
        }
        Self { guest, now: 0, said: 0, held: Vec::new(), camera, bridged_after: None, heard: 0, spoken: 0 }
    }

    /// Lets real time go on, with pictures, and silence where it is due.
    fn pass(&mut self, millis: i64) {
        for _ in 0..millis / 20 {
            self.now += 20;
            if self.camera && self.now % 40 == 0 {
                self.guest.video(self.now, fixtures::P);
            }
            let due = self.bridged_after.is_some_and(|after| self.now - self.heard >= after && self.now % 100 == 0);
            if let Some(now) = self.guest.muxer.timeline_at(ms(self.now)).filter(|_| due) {
                self.guest.muxer.fill_silence(now);
                self.guest.drain();
            }
        }
    }

    fn arrive(&mut self, number: u16, captured: i64) {
        self.heard = self.now;
        self.spoken += 1;
        self.guest.audio_packet(number, captured, self.now, OPUS);
    }

    /// Someone speaks for so long: each packet when it is made.
    fn speak(&mut self, millis: i64) {
        for _ in 0..millis / 20 {
            self.pass(20);
            let (number, captured) = self.next();
            self.arrive(number, captured);
        }
    }

    /// Someone speaks, and the network keeps it; then it lets go.
    fn speak_held(&mut self, millis: i64) {
        for _ in 0..millis / 20 {
            self.pass(20);
            let next = self.next();
            self.held.push(next);
        }
        for (number, captured) in std::mem::take(&mut self.held) {
            self.arrive(number, captured);
        }
    }

    /// The next packet's number and time on its clock.
    fn next(&mut self) -> (u16, i64) {
        self.said += 1;
        (u16::try_from(100 + self.said).expect("few"), self.said * 20)
    }

    /// How far the newest sound is behind real time, and how much of what was said did not go out.
    fn outcome(&mut self) -> (i64, u64) {
        let lines = self.guest.lines();
        let newest = lines.iter().rev().find_map(|line| line.strip_prefix("audio ")).expect("sound");
        let newest: i64 = newest.parse().expect("a time");
        (self.now - newest, self.spoken - self.guest.muxer.stats().audio.frames)
    }

    /// Times of sound, silence and concealment, one after the other, have no hole and no overlap of more than half a packet.
    fn is_without_a_break(&mut self) -> bool {
        let times: Vec<(i64, u32)> = (self.guest.lines.iter().zip(&self.guest.bodies))
            .filter(|(_, body)| body.starts_with(b"\x91Opus"))
            .map(|(line, body)| {
                let at = line.split_once(' ').expect("name and time").1.parse().expect("a time");
                (at, opus::OpusPacket::parse(&body[5..]).expect("Opus").samples)
            })
            .collect();
        times.windows(2).all(|pair| (pair[1].0 - pair[0].0 - i64::from(pair[0].1 / 48)).abs() <= 10)
    }
}

#[test]
fn a_mute_that_stops_the_clock_is_a_hole_as_long_as_it_was() {
    for camera in [true, false] {
        for mute in [200, 480, 700, 1000, 1500, 3000, 3020, 9000, 12_000] {
            let mut live = Live::new(camera);
            live.bridged_after = Some(1000);
            live.speak(3000);
            let before = live.outcome().0;
            live.pass(mute);
            live.speak(3000);
            let whole = live.is_without_a_break();
            let (behind, lost) = live.outcome();
            assert_eq!((behind - before, lost), (0, 0), "{mute} ms, camera {camera}");
            assert!(whole, "{mute} ms, camera {camera}");
        }
    }
}

#[test]
fn a_capture_that_stalls_again_and_again_does_not_fall_behind() {
    for (stall, times) in [(200, 5), (100, 10), (500, 3), (60, 20)] {
        let mut live = Live::new(true);
        live.speak(3000);
        let before = live.outcome().0;
        for _ in 0..times {
            live.pass(stall);
            live.speak(1000);
        }
        let (behind, lost) = live.outcome();
        assert_eq!(lost, 0, "{times} x {stall} ms");
        assert_eq!(behind, before, "{times} x {stall} ms");
    }
}

#[test]
fn small_stalls_that_add_up_are_made_up_for() {
    let mut live = Live::new(true);
    live.speak(3000);
    let before = live.outcome().0;
    for _ in 0..50 {
        live.pass(20);
        live.speak(700);
    }
    let (behind, lost) = live.outcome();
    assert_eq!(lost, 0);
    assert!(behind - before <= 40, "{behind} ms behind, {before} before");
}

#[test]
fn a_stall_soon_after_a_mute_does_not_fall_behind() {
    let mut live = Live::new(true);
    live.bridged_after = Some(1000);
    live.speak(3000);
    let before = live.outcome().0;
    live.pass(3000);
    live.speak(200);
    live.pass(200);
    live.speak(2000);
    let (behind, lost) = live.outcome();
    assert_eq!((behind, lost), (before, 0));
}

#[test]
fn what_the_network_held_back_keeps_its_times() {
    for camera in [true, false] {
        for held in [100, 200, 500, 900] {
            let mut live = Live::new(camera);
            live.speak(3000);
            let before = live.outcome().0;
            for _ in 0..5 {
                live.speak_held(held);
                live.speak(1000);
            }
            let stats = live.guest.muxer.stats().audio;
            let (behind, lost) = live.outcome();
            assert_eq!((behind, lost, stats.silence), (before, 0, 0), "{held} ms, camera {camera}");
        }
    }
}

#[test]
fn of_what_was_held_back_so_long_that_silence_stands_for_it_real_time_takes_what_it_has_room_for() {
    for held in [2000, 4000] {
        let mut live = Live::new(true);
        live.bridged_after = Some(1000);
        live.speak(3000);
        let before = live.outcome().0;
        live.speak_held(held);
        live.speak(3000);
        let (behind, lost) = live.outcome();
        assert_eq!(behind, before, "{held} ms");
        let packets = u64::try_from(held / 20).expect("positive");
        assert!((packets - 8..=packets).contains(&lost), "{held} ms: {lost} of {packets} packets");
    }
}

#[test]
fn a_sender_that_makes_up_for_a_delay_by_a_twentieth_is_not_set_forward() {
    let mut live = Live::new(true);
    live.speak(3000);
    live.guest.lines();
    // As FFmpeg sends what it reads: for a second nothing, then a packet every 19 ms until nothing is left of it.
    live.pass(1000);
    let from = live.now;
    for n in 1..=500 {
        let at = from + n * 19;
        while live.now + 20 <= at {
            live.pass(20);
        }
        let (number, captured) = live.next();
        live.guest.audio_packet(number, captured, at, OPUS);
    }
    let last = live.guest.lines().into_iter().rev().find(|line| line.starts_with("audio"));
    assert_eq!(last, Some(format!("audio {}", live.said * 20)));
    assert_eq!(live.guest.muxer.stats().audio.silence, 0);
}

#[test]
fn jitter_sets_no_clock_forward() {
    for camera in [true, false] {
        for most in [30, 80, 150, 400] {
            let mut live = Live::new(camera);
            live.speak(1000);
            live.guest.lines();
            let mut random = 1_u64;
            let mut late = || {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                i64::try_from((random >> 33) % most).expect("small")
            };
            let mut arrivals: Vec<(i64, bool, i64)> = (0..6000)
                .flat_map(|n| [(n, true), (n, false)])
                .filter(|(n, is_sound)| *is_sound || camera && n % 2 == 0)
                .map(|(n, is_sound)| (1020 + n * 20 + late(), is_sound, n))
                .collect();
            arrivals.sort_unstable();
            for (at, is_sound, n) in arrivals {
                let captured = 1020 + n * 20;
                if is_sound {
                    let number = u16::try_from(151 + n).expect("few");
                    live.guest.audio_packet(number, captured, at, OPUS);
                } else {
                    let number = live.guest.video_seq.wrapping_add(u16::try_from(n / 2).expect("few"));
                    live.guest.video_packet(number, captured, at, fixtures::P);
                }
            }
            live.guest.wait();
            let stats = live.guest.muxer.stats().audio;
            let last = live.guest.lines().into_iter().rev().find(|line| line.starts_with("audio"));
            assert_eq!(stats.silence, 0, "{most} ms, camera {camera}");
            let newest = (1000 + 6000 * 20).to_string();
            assert_eq!(last, Some(format!("audio {}", if camera { 121_000 } else { 120_980 })), "{most} ms, {newest}");
        }
    }
}

#[test]
fn a_way_that_becomes_longer_for_both_tracks_moves_neither() {
    let mut live = Live::new(true);
    live.speak(3000);
    live.guest.lines();
    for n in 1..=100_u16 {
        let captured = live.now + i64::from(n) * 20;
        if n % 2 == 0 {
            let number = live.guest.video_seq;
            live.guest.video_seq += 1;
            live.guest.video_packet(number, captured, captured + 300, fixtures::P);
        }
        let number = u16::try_from(100 + live.said).expect("few") + n;
        live.guest.audio_packet(number, live.said * 20 + i64::from(n) * 20, captured + 300, OPUS);
    }
    let last = live.guest.lines().into_iter().rev().find(|line| line.starts_with("audio"));
    assert_eq!(last, Some(format!("audio {}", live.said * 20 + 2000)));
    assert_eq!(live.guest.muxer.stats().audio.silence, 0);
}

#[test]
fn a_sound_clock_that_steps_back_goes_on_where_real_time_is() {
    for back in [20, 500, 900, 5000] {
        let mut live = Live::new(true);
        live.speak(6000);
        let before = live.outcome().0;
        live.said -= back / 20;
        for n in 0..100_u16 {
            live.pass(20);
            live.said += 1;
            live.arrive(401 + n, live.said * 20);
        }
        let (behind, lost) = live.outcome();
        // One packet is no more than jitter.
        let allowed = if back == 20 { (before + 20, 1) } else { (before, 0) };
        assert_eq!((behind, lost), allowed, "{back} ms");
    }
}
