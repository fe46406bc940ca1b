//! Queues, stalls, planned reconnects and other limits of a publication.

use super::*;

#[test]
fn pings_keep_an_idle_publication_alive() {
    let mut world = World::live(URL);
    world.wire.truncate(HANDSHAKE_LEN);
    world.wait(Duration::from_secs(20));
    let pings = world.wire[HANDSHAKE_LEN..].chunks(18).filter(|chunk| chunk[7] == 4 && chunk[13] == 6).count();
    assert!(pings >= 9, "{pings} in 20 s, servers close after 10 s");
}

#[test]
fn a_slow_server_loses_whole_gops_and_no_audio_younger_than_two_seconds() {
    let mut world = World::live(URL);
    world.takes = false;
    world.play(1480, 25); // 3 GOPs of 500 ms, just within the bound of pictures
    assert_eq!(world.publisher.stats().gops_dropped, 0);
    world.play(1000, 25);
    world.takes = true;
    world.turn();
    let stats = *world.publisher.stats();
    assert!(stats.gops_dropped >= 2 && stats.video_frames_dropped >= 50, "{stats:?}");
    assert_eq!(world.publisher.state(), State::Live);
    // After each gap in the pictures stands a keyframe, and what follows a keyframe is complete.
    let pictures: Vec<_> = world
        .media_sent()
        .into_iter()
        .filter(|(_, text)| text.starts_with("key") || text.starts_with("inter"))
        .collect();
    let mut gaps = 0;
    for pair in pictures.windows(2) {
        if pair[1].0 - pair[0].0 != 20 {
            gaps += 1;
            assert!(pair[1].1.starts_with("key"), "{pair:?}");
        }
    }
    assert_eq!(gaps, 1);
    let times: Vec<_> = world.media_sent().into_iter().filter(|(_, text)| text.starts_with("opus")).collect();
    let last = times.last().unwrap().0;
    let recent = times.iter().filter(|(at, _)| *at >= last - 1980).count();
    assert_eq!(recent, 100, "audio of the last two seconds is whole");
}

#[test]
fn a_gop_longer_than_the_queue_is_cut_and_a_keyframe_asked_for() {
    let mut world = World::live(URL);
    world.media = 4000;
    world.takes = false;
    world.play(2100, 1000); // one keyframe at most, at 20 s
    let outputs = world.take_outputs();
    assert!(outputs.contains(&Output::KeyframeNeeded));
    world.takes = true;
    world.wire.truncate(HANDSHAKE_LEN);
    world.turn();
    world.play(200, 1000);
    world.media = 20_000;
    world.play(40, 1000);
    let texts: Vec<_> = world.wire[HANDSHAKE_LEN..].to_vec();
    let find = |text: &[u8]| texts.windows(text.len()).position(|window| window == text);
    assert!(find(b"inter 6200").is_none(), "no picture between the cut and the keyframe");
    assert!(find(b"opus 6200").is_some());
    assert!(find(b"key 20000").is_some() && find(b"inter 20020").is_some());
}

#[test]
fn a_stop_flushes_and_unpublishes() {
    let mut world = World::live(URL);
    world.takes = false;
    world.play(100, 50);
    world.publisher.stop(world.now);
    assert_eq!(world.publisher.state(), State::Stopping);
    assert_eq!(world.take_outputs(), []);
    world.takes = true;
    let expected = [Output::Disconnect, Output::Event(Event::Stopped)];
    assert_eq!(world.take_outputs(), expected);
    assert_eq!((world.publisher.state(), world.publisher.poll_timeout()), (State::Stopped, None));
    let sent = world.sent();
    let names: Vec<_> = sent[sent.len() - 3..].iter().map(|sent| (sent.type_id, sent.payload.clone())).collect();
    assert_eq!(names[0].0, 8, "the last queued audio went first");
    assert!(names[1].1.starts_with(b"\x02\x00\x0bFCUnpublish"));
    assert!(names[2].1.starts_with(b"\x02\x00\x0cdeleteStream"));
    world.publisher.start(world.now);
    assert_eq!(world.take_outputs(), [Output::Connect], "it can start again");
}

#[test]
fn a_stop_ends_after_a_second_even_if_nothing_is_written_and_at_once_without_a_publication() {
    let mut world = World::live(URL);
    world.takes = false;
    world.publisher.stop(world.now);
    world.wait(STOP_DEADLINE);
    assert_eq!(world.publisher.state(), State::Stopped);

    let mut world = World::new(URL);
    world.publisher.start(world.now);
    world.take_outputs();
    world.publisher.stop(world.now);
    assert_eq!(world.take_outputs(), [Output::Disconnect, Output::Event(Event::Stopped)]);

    let mut world = World::live(URL);
    world.publisher.handle_disconnected(Disconnected::Closed, world.now);
    world.take_outputs();
    world.publisher.stop(world.now);
    assert_eq!(world.take_outputs(), [Output::Event(Event::Stopped)], "in backoff there is no socket");
    world.wait(Duration::from_secs(60));
    assert_eq!(world.take_outputs(), []);
}

#[test]
fn a_reconnect_request_is_followed_at_the_next_keyframe_on_the_same_host_only() {
    let code = ("code", "NetConnection.Connect.ReconnectRequest");
    let mut world = World::live(URL);
    world.hear(&on_status(&[code, ("tcUrl", "rtmp://evil.example/live")]));
    assert_eq!(world.take_outputs(), []);
    assert_eq!(world.publisher.stats().reconnect_requests_refused, 1);

    world.hear(&on_status(&[code, ("tcUrl", "rtmp://127.0.0.1/live2")]));
    assert_eq!(world.take_outputs(), [Output::KeyframeNeeded]);
    world.play(100, 50);
    assert_eq!(world.publisher.state(), State::Live, "until a keyframe comes");
    world.media = 10_000;
    world.push(TagKind::Video, Frame::Keyframe, 10_000, b"key");
    let outputs = world.take_outputs();
    let lost = Event::Lost { reason: LostReason::ReconnectRequested, retry_in: Duration::ZERO };
    assert_eq!(outputs, [Output::Event(lost), Output::Disconnect, Output::Connect]);
    assert_eq!(world.publisher.target().to_string(), "rtmp://127.0.0.1/live2/g");
    world.outputs.push(Output::Connect);
    world.serve();
    let connect = world.sent()[0].payload.clone();
    assert!(connect.windows(21).any(|window| window == b"rtmp://127.0.0.1/live"), "tcUrl of the new application");
    // A failure there leads back to the configured target.
    world.publisher.handle_disconnected(Disconnected::Closed, world.now);
    world.wait(Duration::from_secs(1));
    assert_eq!(world.publisher.target().to_string(), "rtmp://127.0.0.1/live/g");
}

#[test]
fn reconnect_requests_before_the_proof_cannot_make_a_fast_loop() {
    let mut world = World::new(URL);
    world.publisher.start(world.now);
    world.headers();
    let start = world.now;
    for _ in 0..6 {
        world.serve();
        world.hear(&on_status(&[("code", "NetConnection.Connect.ReconnectRequest")]));
        world.media += 1000 - world.media % 1000;
        world.push(TagKind::Video, Frame::Keyframe, world.media, b"first key");
        let (reason, retry_in) = lost(&world.take_outputs()).unwrap();
        assert_eq!(reason, LostReason::ReconnectRequested);
        world.wait(retry_in);
    }
    assert!(world.now - start >= Duration::from_secs(14), "{:?}", world.now - start);
}

#[test]
fn the_end_of_the_timestamps_is_met_with_a_new_connection_at_an_idr() {
    let mut world = World::live(URL);
    let base = world.media;
    world.media = (1 << 32) - 3_600_000 - 40;
    world.media -= world.media % 20;
    world.push(TagKind::Video, Frame::InterFrame, world.media, b"inter");
    world.push(TagKind::Video, Frame::InterFrame, world.media + 40_000, b"past the limit");
    assert_eq!(world.publisher.state(), State::Live, "not without a keyframe; base {base}");
    world.push(TagKind::Video, Frame::Keyframe, world.media + 80_000, b"key");
    let outputs = world.take_outputs();
    let lost = Event::Lost { reason: LostReason::TimestampLimit, retry_in: Duration::ZERO };
    assert_eq!(outputs, [Output::Event(lost), Output::Disconnect, Output::Connect]);
    let times: Vec<_> = world.media_sent().into_iter().map(|(at, _)| at).collect();
    assert!(times.is_sorted());
}

#[test]
fn timestamps_strictly_increase_per_track_and_a_large_step_back_is_a_new_connection() {
    let mut world = World::live(URL);
    let at = world.media;
    for dts in [at, at, at - 5, at + 1, at + 40] {
        world.push(TagKind::Video, Frame::InterFrame, dts, b"inter");
        world.push(TagKind::Audio, Frame::Audio, dts, b"opus");
    }
    for type_id in [8, 9] {
        let times: Vec<_> =
            world.sent().into_iter().filter(|sent| sent.type_id == type_id).map(|sent| sent.timestamp).collect();
        let frames = &times[1..]; // behind the sequence header
        assert!(frames.windows(2).all(|pair| pair[0] < pair[1]), "type {type_id}: {frames:?}");
    }
    world.push(TagKind::Video, Frame::InterFrame, at - 3000, b"inter");
    let (reason, retry_in) = lost(&world.take_outputs()).unwrap();
    assert_eq!((reason, retry_in), (LostReason::TimeWentBack, Duration::ZERO));
}

#[test]
fn a_track_that_begins_late_gets_a_new_connection_instead_of_a_refusal() {
    let mut world = World::new(URL);
    world.publisher.start(world.now);
    world.push(TagKind::Video, Frame::VideoSequenceHeader, 0, b"avcC");
    world.serve();
    for at in (0..4000).step_by(20) {
        let frame = if at == 0 { Frame::Keyframe } else { Frame::InterFrame };
        world.push(TagKind::Video, frame, at, b"picture");
        world.wait(Duration::from_millis(20));
    }
    assert_eq!(world.publisher.state(), State::Live);
    world.push(TagKind::Audio, Frame::AudioSequenceHeader, 4000, b"OpusHead");
    world.push(TagKind::Audio, Frame::Audio, 4000, b"opus");
    assert!(world.sent().iter().all(|sent| sent.type_id != 8), "audio would end this connection");
    world.outputs.clear();
    world.push(TagKind::Video, Frame::Keyframe, 4020, b"key");
    assert_eq!(lost(&world.take_outputs()).unwrap().0, LostReason::LateTrack);
}

#[test]
fn audio_that_begins_within_the_window_joins_the_connection() {
    let mut world = World::new(URL);
    world.publisher.start(world.now);
    world.push(TagKind::Video, Frame::VideoSequenceHeader, 0, b"avcC");
    world.serve();
    world.push(TagKind::Video, Frame::Keyframe, 0, b"key");
    world.push(TagKind::Audio, Frame::Audio, 900, b"before its header");
    world.push(TagKind::Audio, Frame::AudioSequenceHeader, 1000, b"OpusHead");
    world.push(TagKind::Audio, Frame::Audio, 1000, b"opus");
    let expected = [(0, "avcC"), (0, "key"), (1000, "OpusHead"), (1000, "opus")];
    let expected = expected.map(|(at, text)| (at, text.to_owned()));
    assert_eq!(world.media_sent(), expected);
}

#[test]
fn a_second_opus_sequence_start_is_kept_for_the_next_connection() {
    let mut world = World::live(URL);
    let at = world.media;
    world.push(TagKind::Audio, Frame::AudioSequenceHeader, at, b"OpusHead mono");
    world.push(TagKind::Video, Frame::VideoSequenceHeader, at, b"avcC 2");
    let texts: Vec<_> = world.media_sent().into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts.iter().filter(|text| text.starts_with("OpusHead")).count(), 1);
    assert_eq!(texts.last().unwrap(), "avcC 2", "parameter sets may change at any time");
    world.publisher.handle_disconnected(Disconnected::Closed, world.now);
    world.wait(Duration::from_secs(1));
    world.serve();
    world.push(TagKind::Video, Frame::Keyframe, 20_000, b"key");
    let texts: Vec<_> = world.media_sent().into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts[1..], ["avcC 2", "OpusHead mono", "key"]);
}

#[test]
fn audio_only_never_sends_a_picture() {
    let mut world = World::new(URL);
    world.publisher.renew(Tracks::AudioOnly);
    world.publisher.start(world.now);
    world.headers();
    world.serve();
    world.play(3100, 50);
    assert_eq!(world.publisher.state(), State::Live);
    let sent = world.sent().into_iter().filter(|sent| matches!(sent.type_id, 8 | 9 | 18));
    assert!(sent.map(|sent| sent.type_id).all(|type_id| [8, 18].contains(&type_id)));
}

#[test]
fn rejections_carry_the_server_s_code() {
    let mut world = World::new(URL);
    world.publisher.start(world.now);
    world.take_outputs();
    world.publisher.handle_connected(world.now);
    world.turn();
    let status = connected().windows(8).position(|window| window == b"onStatus").unwrap() - 15;
    world.hear(&connected()[..status]);
    world.hear(&on_status(&[("level", "error"), ("code", "NetStream.Publish.BadName")]));
    let outputs = world.take_outputs();
    assert_eq!(outputs[0], Output::Disconnect);
    let (reason, _) = lost(&outputs).unwrap();
    assert_eq!(reason.to_string(), "refused by the server: NetStream.Publish.BadName");
}

#[test]
fn garbage_from_a_live_server_ends_the_connection_alone() {
    let mut world = World::live(URL);
    world.hear(&[0xff; 100]);
    let (reason, _) = lost(&world.take_outputs()).unwrap();
    assert!(matches!(reason, LostReason::Protocol(ProtocolError::Chunk(_))), "{reason:?}");
    world.hear(&[0xff; 100]); // late bytes of the dead connection
    assert_eq!(world.publisher.state(), State::Backoff);
}

#[test]
fn a_server_that_pings_without_reading_cannot_fill_the_queue() {
    let mut world = World::live(URL);
    world.takes = false;
    let ping = [2, 0, 0, 0, 0, 0, 6, 4, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0];
    for _ in 0..100 {
        world.hear(&ping.repeat(100));
        assert!(world.publisher.queued_bytes() <= CONTROL_BYTES_MAX + 2000);
    }
    assert_eq!(lost(&world.take_outputs()).unwrap().0, LostReason::Protocol(ProtocolError::Flood));
}

#[test]
fn a_picture_that_no_server_takes_is_left_out_with_all_that_refer_to_it() {
    let mut world = World::live(URL);
    let at = world.media;
    let huge = vec![0; BODY_MAX + 1];
    world.push(TagKind::Video, Frame::InterFrame, at, &huge);
    world.push(TagKind::Video, Frame::InterFrame, at + 20, b"refers to it");
    assert!(world.take_outputs().contains(&Output::KeyframeNeeded));
    world.push(TagKind::Video, Frame::Keyframe, at + 40, b"fresh");
    let texts: Vec<_> = world.media_sent().into_iter().map(|(_, text)| text).collect();
    assert!(!texts.contains(&"refers to it".to_owned()));
    assert_eq!(texts.last().unwrap(), "fresh");
    assert_eq!(world.publisher.stats().oversized, 1);
}

#[test]
fn credentials_are_in_the_connect_command_and_in_no_text() {
    let mut world = World::new("rtmp://127.0.0.1/g?user=u&pass=CANARY");
    world.publisher.start(world.now);
    world.take_outputs();
    world.publisher.handle_connected(world.now);
    world.takes = false;
    world.hear(&NGINX_SERVER[..HANDSHAKE_LEN]);
    let bytes = world.publisher.write_buffer();
    assert!(bytes.windows(6).any(|window| window == b"CANARY"));
    assert!(!format!("{:?} {:?}", world.publisher, world.publisher.target()).contains("CANARY"));
}

#[test]
fn hundreds_of_reconnects_leave_nothing_behind() {
    let mut world = World::new(URL);
    world.publisher.start(world.now);
    world.headers();
    for _ in 0..300 {
        world.serve();
        world.media += 1000 - world.media % 1000;
        world.play(100, 50);
        world.publisher.handle_disconnected(Disconnected::Closed, world.now);
        assert_eq!(world.publisher.queued_bytes(), 0);
        let (_, retry_in) = lost(&world.take_outputs()).unwrap();
        world.wait(retry_in);
    }
    assert_eq!(world.publisher.stats().attempts, 301);
}
