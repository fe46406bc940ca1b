//! Publishers against the recorder over real sockets.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use loadgen::Driver;
use loadgen::clip::{Clip, TrackKind};
use loadgen::netem::Impairments;
use loadgen::patience::{Deadline, PATIENCE};
use loadgen::proxy::Proxy;
use loadgen::publisher::{Finished, Options, Publisher};
use loadgen::record::{RecordOptions, Recording, Server};

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// A recorder that goes on until its publisher leaves.
fn recorder() -> (String, thread::JoinHandle<Recording>) {
    let server = Server::bind(any_port()).unwrap();
    let url = format!("http://{}/whip/guest1", server.address());
    let options = RecordOptions { length: PATIENCE * 2, deadline: PATIENCE * 2, ..RecordOptions::default() };
    (url, thread::spawn(move || server.record(&options).unwrap()))
}

/// What was recorded is what was sent, unit by unit.
fn check(finished: &Finished, recording: &Recording) {
    let clip = Clip::from_records(&recording.records, &recording.sdp).unwrap();
    for kind in [TrackKind::Video, TrackKind::Audio] {
        let sent: Vec<u64> = finished.sent.iter().filter(|unit| unit.kind == kind).map(|unit| unit.digest).collect();
        let received: Vec<u64> = clip.track(kind).unwrap().units.iter().map(|unit| unit.digest).collect();
        assert_eq!(received, sent, "{kind:?}");
    }
}

#[test]
fn two_guests_of_one_driver_arrive_bit_exact_and_leave_one_after_the_other() {
    let driver = Driver::start();
    let clip = Clip::chromium_720p();
    let [first, second] = [0, 1].map(|_| {
        let (url, recording) = recorder();
        (Publisher::connect_with(&driver, &url, &clip, &Options::default()).unwrap(), recording)
    });
    assert!(first.0.wait(PATIENCE, |stats| stats.video_frames >= 30));
    let finished = first.0.stop().unwrap();
    assert_eq!(finished.delete_status.as_deref(), Some("200"));
    check(&finished, &first.1.join().unwrap());

    let frames = second.0.stats().video_frames;
    assert!(second.0.wait(PATIENCE, |stats| stats.video_frames >= frames + 15));
    let finished = second.0.stop().unwrap();
    assert_eq!(finished.stats.plis, 1, "the recorder asks for one keyframe at the start");
    check(&finished, &second.1.join().unwrap());
}

#[test]
fn hostile_datagrams_from_the_guests_own_socket_cost_no_frame() {
    let (url, recording) = recorder();
    let publisher = Publisher::connect(&url, &Clip::chromium_360p()).unwrap();
    assert!(publisher.wait(PATIENCE, |stats| stats.video_frames >= 5));
    publisher.send_hostile(8000);
    assert!(publisher.wait(PATIENCE, |_| publisher.hostile_sent() == 8000));
    assert!(publisher.is_alive());
    let finished = publisher.stop().unwrap();
    check(&finished, &recording.join().unwrap());
}

#[test]
fn an_endpoint_that_refuses_is_reported_with_its_reason() {
    let server = Server::bind(any_port()).unwrap();
    let url = format!("http://{}/whip/guest1", server.address());
    drop(server);
    let error = Publisher::connect(&url, &Clip::chromium_360p()).err().unwrap();
    assert!(!error.to_string().is_empty());
}

#[test]
fn the_proxy_forwards_both_ways_and_loses_what_it_is_told_to() {
    let server = std::net::UdpSocket::bind(any_port()).unwrap();
    let client = std::net::UdpSocket::bind(any_port()).unwrap();
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let lose_up = Impairments { loss: 0.5, ..Impairments::default() };
    let to = server.local_addr().unwrap();
    let proxy = Proxy::bind(any_port(), to, lose_up, Impairments::default(), 9).unwrap();
    client.connect(proxy.address().unwrap()).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let running = thread::spawn(move || proxy.run(&stopped).unwrap());

    for number in 0..=100u8 {
        client.send(&[number]).unwrap();
    }
    let mut buffer = [0; 16];
    let mut through = 0;
    // Send until the last one is through: it may be lost itself.
    server.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let deadline = Deadline::new("the last datagram to come through");
    loop {
        deadline.check(|| through);
        match server.recv_from(&mut buffer) {
            Ok((_, from)) => {
                through += 1;
                server.send_to(b"back", from).unwrap();
                if buffer[0] == 255 {
                    break;
                }
            }
            Err(_) => {
                client.send(&[255]).unwrap();
            }
        }
    }
    for _ in 0..through {
        assert_eq!(client.recv(&mut buffer).unwrap(), 4);
    }
    stop.store(true, Ordering::Relaxed);
    let (up, down) = running.join().unwrap();
    assert!(up.lost >= 30 && up.pushed - up.lost >= through, "{up:?}");
    assert_eq!((down.pushed, down.lost), (through, 0));
}
