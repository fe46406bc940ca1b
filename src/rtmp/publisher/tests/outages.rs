//! Servers that are killed, stopped, or behind a network that is gone: noticed, and found again when they are back.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outage {
    /// The process is gone: the kernel refuses connections.
    Killed,
    /// The process stands still (SIGSTOP): the kernel takes connections and bytes, nothing answers.
    Stopped,
    /// The host is gone: connections come about when a SYN, sent at once and after a second, finds it again.
    Partitioned,
}

/// When the loss was noticed after the outage began, and when media could flow again after the server was back.
fn outage(kind: Outage, lasts: Duration) -> (Duration, Duration) {
    let mut world = World::new(URL);
    world.pongs = true;
    world.publisher.start(world.now);
    world.headers();
    world.serve();
    world.play(5000, 50);
    assert_eq!(world.publisher.state(), State::Live);
    world.take_outputs();

    let began = world.now;
    world.pongs = false;
    if kind == Outage::Killed {
        world.publisher.handle_disconnected(Disconnected::Failed(ErrorKind::ConnectionReset), world.now);
    }
    let (mut noticed, mut asked, mut handshaking) = (None, None, false);
    loop {
        world.play(20, 50);
        assert!(world.now < began + lasts + Duration::from_secs(60), "never back");
        let back = world.now >= began + lasts;
        if world.publisher.state() != State::Live {
            noticed.get_or_insert(world.now - began);
        }
        for output in world.take_outputs() {
            match output {
                Output::Connect => asked = Some(world.now),
                Output::Disconnect => (asked, handshaking) = (None, false),
                Output::KeyframeNeeded | Output::Event(_) => {}
            }
        }
        if handshaking && back {
            break;
        }
        let Some(since) = asked else { continue };
        match kind {
            Outage::Killed if !back => {
                asked = None;
                world.publisher.handle_disconnected(Disconnected::Failed(ErrorKind::ConnectionRefused), world.now);
            }
            Outage::Partitioned if !back => {}
            Outage::Partitioned if since < began + lasts && world.now < since + Duration::from_secs(1) => {}
            _ => {
                (asked, handshaking) = (None, true);
                world.wire.clear();
                world.publisher.handle_connected(world.now);
                if back {
                    break;
                }
            }
        }
    }
    world.hear(&connected());
    assert_eq!(world.publisher.state(), State::Publishing, "{kind:?} for {lasts:?}");
    (noticed.unwrap(), world.now - began - lasts)
}

#[test]
fn a_server_that_stands_still_for_eight_seconds_keeps_its_publication() {
    for start in 0..40 {
        let mut world = World::new(URL);
        world.pongs = true;
        world.publisher.start(world.now);
        world.headers();
        world.serve();
        // At each phase between two pings.
        world.play(5000 + start * 50, 50);
        assert_eq!(world.publisher.state(), State::Live);
        world.take_outputs();
        // The kernel takes bytes for a while, in every other round.
        (world.pongs, world.takes) = (false, start % 2 == 0);
        world.play(7900, 50);
        (world.pongs, world.takes) = (true, true);
        world.turn();
        let pong = [2, 0, 0, 0, 0, 0, 6, 4, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0];
        world.hear(&pong);
        world.play(4000, 50);
        assert_eq!(world.publisher.state(), State::Live, "{:?}", lost(&world.take_outputs()));
    }
}

#[test]
fn an_outage_is_noticed_within_ten_seconds_and_its_end_within_two() {
    for kind in [Outage::Killed, Outage::Stopped, Outage::Partitioned] {
        for tenths in 101..200 {
            let (noticed, found) = outage(kind, Duration::from_millis(tenths * 100));
            assert!(noticed <= Duration::from_millis(10_040), "{kind:?} noticed after {noticed:?}");
            assert!(found <= Duration::from_secs(2), "{kind:?} of {tenths} tenths: found after {found:?}");
        }
    }
}

#[test]
fn a_new_set_of_tracks_waits_for_the_next_connection() {
    let mut world = World::new(URL);
    world.publisher.renew(Tracks::AudioOnly);
    world.publisher.start(world.now);
    world.headers();
    world.serve();
    world.play(3100, 50);
    assert_eq!(world.publisher.state(), State::Live);
    world.take_outputs();
    world.publisher.set_tracks(Tracks::AudioVideo, world.now);
    world.publisher.set_tracks(Tracks::AudioVideo, world.now);
    assert_eq!(world.take_outputs(), [Output::KeyframeNeeded]);
    world.play(400, 1000); // no keyframe in it
    assert!(world.sent().iter().all(|sent| sent.type_id != 9), "a picture would end this connection");
    world.media = 10_000;
    world.play(20, 50);
    let lost = Event::Lost { reason: LostReason::LateTrack, retry_in: Duration::ZERO };
    assert_eq!(world.take_outputs(), [Output::Event(lost), Output::Disconnect, Output::Connect]);
    world.outputs.push(Output::Connect);
    world.serve();
    world.media = 11_000;
    world.play(20, 50);
    let sent = world.media_sent();
    let sent: Vec<_> = sent.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(sent[1..], ["avcC", "OpusHead", "key 11000", "opus 11000"]);
}

#[test]
fn another_guest_s_publication_begins_with_nothing_of_the_last_one_s() {
    let mut world = World::live(URL);
    world.publisher.stop(world.now);
    world.take_outputs();
    world.publisher.renew(Tracks::AudioOnly);
    world.publisher.start(world.now);
    world.serve();
    world.push(TagKind::Audio, Frame::Audio, 50_000, b"opus without a header");
    assert_eq!(world.media_sent(), []);
    world.push(TagKind::Audio, Frame::AudioSequenceHeader, 50_020, b"OpusHead 2");
    world.push(TagKind::Audio, Frame::Audio, 50_020, b"opus");
    assert_eq!(world.media_sent(), [(0, "OpusHead 2".to_owned()), (0, "opus".to_owned())]);
}
