//! The daemon beside a media thread that never answers.
#![allow(clippy::unwrap_used)]

use super::question::MEDIA_ANSWER;
use super::sessions::Session;
use super::*;
use crate::guest::Guest;
use crate::guest::id::ResourceId;
use crate::http::backend::{Backend, ClientInfo, Health, MediaPath, NoAnswer};
use crate::rtmp::Target;
use crate::within::within;

const OFFER: &str = include_str!("../../tests/fuzz/seeds/offer/chromium");

/// A daemon with two guests, and the queue of its media thread.
fn unanswered() -> (Rc<Daemon>, std::sync::mpsc::Receiver<Command>) {
    let config = Config::default();
    let (media, queue) = media::unattended::media_thread();
    let target = Target::parse("rtmp://127.0.0.1:1935/live").unwrap();
    let guests = ["guest1", "guest2"].map(|id| GuestId::parse(id).unwrap());
    let guest = |id: GuestId| Guest { name: id.to_string(), id, enabled: true };
    let sessions = Sessions::new(guests.map(|id| (guest(id), target.clone())));
    let executor: &'static LocalExecutor<'static> = Box::leak(Box::default());
    (Rc::new(Daemon::new(config, media, sessions, Certificate::generate(), executor)), queue)
}

fn guest1() -> GuestId {
    GuestId::parse("guest1").unwrap()
}

fn commands(queue: &std::sync::mpsc::Receiver<Command>) -> Vec<&'static str> {
    let name = |command| match command {
        Command::Snapshot { .. } => "snapshot",
        Command::State { .. } => "state",
        Command::Join { .. } => "join",
        Command::Leave { .. } => "leave",
        _ => "another",
    };
    queue.try_iter().map(name).collect()
}

#[test]
fn nobody_is_said_to_be_absent_by_a_media_thread_that_does_not_answer() {
    let (daemon, queue) = unanswered();
    let ask = async |daemon: Rc<Daemon>| {
        let (backend, guest) = (DaemonBackend(daemon), guest1());
        let of_all = smol::future::zip(backend.guests(), backend.measurements());
        let of_one = smol::future::zip(backend.state(&guest), backend.health());
        let ((guests, measurements), (state, health)) = smol::future::zip(of_all, of_one).await;
        assert!(guests.is_err() && measurements.is_err());
        assert_eq!(state, Err(NoAnswer));
        assert_eq!(health, Health::Unhealthy("the media thread does not answer".to_owned()));
    };
    let askers: Vec<_> = (0..200).map(|_| daemon.executor.spawn(ask(Rc::clone(&daemon)))).collect();
    let all = async {
        for asker in askers {
            asker.await;
        }
    };
    let in_time = daemon.executor.run(within(10 * MEDIA_ANSWER, all));
    smol::block_on(in_time).expect("each question is given up in time");
    // 800 questions, none of which was answered.
    assert_eq!(commands(&queue), ["snapshot", "state"]);
}

#[test]
fn an_offer_that_the_media_thread_does_not_take_leaves_the_slot_as_it_was() {
    let (daemon, queue) = unanswered();
    let (resource, key) = (ResourceId::generate(), daemon.sessions.next_key());
    let session = Session { resource: resource.clone(), etag: "etag".to_owned(), ufrag: None, publication: None };
    daemon.admit(Slot(0), key, None, session);
    let backend = DaemonBackend(Rc::clone(&daemon));
    let loopback = ([127, 0, 0, 1], 8000).into();
    let client = ClientInfo { local_addr: loopback, remote_ip: loopback.ip(), tunnelled: false };
    let guest = guest1();
    let published = backend.publish(&guest, MediaPath::Direct, OFFER.to_owned(), None, client);
    let refusal = smol::block_on(daemon.executor.run(published)).unwrap_err();
    assert_eq!((refusal.status, commands(&queue)), (503, vec!["join", "leave"]));
    assert_eq!(daemon.sessions.find(&guest, &resource), Some((Slot(0), key)), "whoever has the slot keeps it");
}
