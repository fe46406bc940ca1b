//! The pull against a model of the SFU in which everything may fail, until it does not any more.

use std::collections::{BTreeMap, HashMap};

use super::*;

/// After the last fault.
const CONVERGES_WITHIN: Duration = Duration::from_secs(10);
/// API calls in one second, closing of earlier sessions included.
const CALLS_PER_SECOND_MAX: usize = 12;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    fn ms(&mut self, from: u32, to: u32) -> Duration {
        let span = u64::from(to - from + 1);
        MS * (from + u32::try_from(self.next() % span).unwrap())
    }
}

/// The session that a call changes.
fn mutated(call: &ApiCall) -> Option<&str> {
    match call {
        ApiCall::NewSession | ApiCall::Inspect { .. } => None,
        ApiCall::NewTracks { session, .. }
        | ApiCall::Renegotiate { session, .. }
        | ApiCall::CloseTracks { session, .. } => Some(session),
    }
}

#[derive(Debug)]
enum Happening {
    Reply(CallId, Result<ApiReply, CallError>),
    Described(PeerId, Result<String, DescriptionError>),
    Applied(PeerId),
    Peer(PeerId, PeerEvent),
}

#[derive(Default)]
struct Session {
    tracks: Vec<(TrackKind, String)>,
    outstanding: u32,
    /// Our answer is awaited.
    offer_open: bool,
}

struct Peer {
    session: Option<String>,
    connected: bool,
    path_lost: bool,
}

struct World {
    rng: Rng,
    pull: Pull,
    now: Instant,
    faults: bool,
    can_renew: bool,
    can_offer: bool,
    due: BTreeMap<(Instant, u64), Happening>,
    happenings: u64,
    sessions: HashMap<String, Session>,
    peers: HashMap<PeerId, Peer>,
    /// What each outstanding call changes.
    outstanding: HashMap<CallId, String>,
    calls_at: VecDeque<Instant>,
    busiest: usize,
    last_tracks: Option<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let now = Instant::now();
        let form = match rng.percent(50) {
            true => PullForm::SfuOffers,
            false => PullForm::WeOffer,
        };
        Self {
            pull: Pull::new(publication(), form, rng.next(), now),
            now,
            faults: true,
            can_renew: rng.percent(50),
            can_offer: rng.percent(70),
            due: BTreeMap::new(),
            happenings: 0,
            sessions: HashMap::new(),
            peers: HashMap::new(),
            outstanding: HashMap::new(),
            calls_at: VecDeque::new(),
            busiest: 0,
            last_tracks: None,
            rng,
        }
    }

    fn plan(&mut self, after: Duration, happening: Happening) {
        self.happenings += 1;
        self.due.insert((self.now + after, self.happenings), happening);
    }

    fn drain(&mut self) {
        while let Some(output) = self.pull.poll_output() {
            match output {
                Output::Call(id, call) => self.call(id, &call),
                Output::AnswerOffer { peer, renewed, .. } => {
                    let fails = (renewed && !self.can_renew) || (self.faults && self.rng.percent(5));
                    let session = self.last_tracks.clone();
                    self.peers.entry(peer).or_insert(Peer { session, connected: false, path_lost: false });
                    let sdp = if fails { Err(DescriptionError::PeerGone) } else { Ok("answer".to_owned()) };
                    let after = self.rng.ms(1, 50);
                    self.plan(after, Happening::Described(peer, sdp));
                }
                Output::MakeOffer { peer, .. } => {
                    let sdp = if self.can_offer { Ok("offer".to_owned()) } else { Err(DescriptionError::PeerGone) };
                    self.peers.insert(peer, Peer { session: None, connected: false, path_lost: false });
                    let after = self.rng.ms(1, 50);
                    self.plan(after, Happening::Described(peer, sdp));
                }
                Output::ApplyAnswer { peer, .. } => {
                    self.peers.get_mut(&peer).unwrap().session = self.last_tracks.clone();
                    let after = self.rng.ms(1, 50);
                    self.plan(after, Happening::Applied(peer));
                }
                Output::Connect { peer } => {
                    if !(self.faults && self.rng.percent(17)) {
                        let after = self.rng.ms(80, 400);
                        self.plan(after, Happening::Peer(peer, PeerEvent::Connected));
                    }
                }
                Output::DropPeer { peer } => {
                    assert!(self.peers.remove(&peer).is_some(), "dropped twice");
                }
                Output::State(_) | Output::Trouble(_) | Output::Dropped(_) => {}
            }
        }
        let stats = self.pull.stats();
        let open = u64::try_from(open_sessions(&self.pull)).unwrap();
        assert_eq!(stats.sessions_made, stats.sessions_closed + stats.sessions_abandoned + open, "a session got lost");
        assert!(self.peers.len() <= 2 + CLOSINGS_MAX);
    }

    fn call(&mut self, id: CallId, call: &ApiCall) {
        self.calls_at.push_back(self.now);
        while self.calls_at.front().is_some_and(|at| *at + S <= self.now) {
            self.calls_at.pop_front();
        }
        self.busiest = self.busiest.max(self.calls_at.len());
        if let Some(session) = mutated(call) {
            let outstanding = &mut self.sessions.get_mut(session).expect("a session that was made").outstanding;
            *outstanding += 1;
            assert_eq!(*outstanding, 1, "two mutations of one session at once");
            let is_answer = matches!(call, ApiCall::Renegotiate { .. });
            let offer_open = self.sessions.get(session).unwrap().offer_open;
            assert!(!offer_open || is_answer, "a mutation in the middle of an SDP exchange: {call:?}");
            self.outstanding.insert(id, session.to_owned());
        }
        let kind = match call {
            ApiCall::NewSession => Call::NewSession,
            ApiCall::NewTracks { .. } => Call::NewTracks,
            ApiCall::Renegotiate { .. } => Call::Renegotiate,
            ApiCall::CloseTracks { .. } => Call::CloseTracks,
            ApiCall::Inspect { .. } => Call::Inspect,
        };
        let quick = self.rng.ms(30, 500);
        let (after, reply) = if self.faults && self.rng.percent(45) {
            self.failure(kind, call)
        } else {
            (quick, Ok(self.success(call)))
        };
        self.plan(after, Happening::Reply(id, reply));
    }

    fn failure(&mut self, kind: Call, call: &ApiCall) -> (Duration, Result<ApiReply, CallError>) {
        let quick = self.rng.ms(30, 500);
        match self.rng.next() % 10 {
            0 => {
                let cause = Cause::Unreachable("refused".to_owned());
                (self.rng.ms(0, 3000), Err(CallError { call: kind, cause }))
            }
            // Carried out, but nobody learns of it.
            1 => {
                self.success(call);
                (self.rng.ms(100, 15_000), Err(lost(kind)))
            }
            2 => (self.rng.ms(100, 15_000), Err(lost(kind))),
            3 if kind == Call::NewTracks => {
                let items = [("video", Err("empty_track_error")), ("audio", Err("empty_track_error"))];
                (8500 * MS, Ok(tracks(&items, None)))
            }
            4 | 5 if kind == Call::NewTracks => {
                let ApiReply::Tracks(mut reply) = self.success(call) else { unreachable!() };
                let ApiCall::NewTracks { session, .. } = call else { unreachable!() };
                let failed = reply.tracks.pop().unwrap().track_name.unwrap();
                let kept = &mut self.sessions.get_mut(session).unwrap().tracks;
                kept.pop();
                let ApiReply::Tracks(failed) = tracks(&[(&failed, Err("internal_error"))], None) else {
                    unreachable!()
                };
                reply.tracks.extend(failed.tracks);
                (quick, Ok(ApiReply::Tracks(reply)))
            }
            // The publisher lives: it is never the one that is gone.
            6 if matches!(call, ApiCall::Inspect { session } if session == "publisher") => {
                (self.rng.ms(100, 3000), Err(lost(kind)))
            }
            6 => (quick, Err(refused(kind, 410, "session_error"))),
            7 => (
                self.rng.ms(30, 5000),
                Err(refused(kind, [425, 406, 400, 429, 500][usize::try_from(self.rng.next() % 5).unwrap()], "")),
            ),
            8 => (quick, Err(refused(kind, 503, ""))),
            _ => (quick, Err(refused(kind, 401, "unauthorized"))),
        }
    }

    fn success(&mut self, call: &ApiCall) -> ApiReply {
        match call {
            ApiCall::NewSession => {
                let session = format!("session-{}", self.sessions.len());
                self.sessions.insert(session.clone(), Session::default());
                ApiReply::Session(session)
            }
            ApiCall::NewTracks { session: id, request } => {
                let session = self.sessions.get_mut(id).unwrap();
                session.offer_open = request.session_description.is_none();
                self.last_tracks = Some(id.clone());
                let mut items = Vec::new();
                for track in &request.tracks {
                    let name = track.track_name.clone().unwrap();
                    let kind = if name == "video" { Video } else { Audio };
                    let mid = session.tracks.len().to_string();
                    session.tracks.push((kind, mid.clone()));
                    items.push((name, mid));
                }
                let items: Vec<_> = items.iter().map(|(name, mid)| (name.as_str(), Ok(mid.as_str()))).collect();
                let kind = if request.session_description.is_some() { "answer" } else { "offer" };
                tracks(&items, Some(kind))
            }
            ApiCall::Renegotiate { session, .. } => {
                self.sessions.get_mut(session).unwrap().offer_open = false;
                ApiReply::Done
            }
            ApiCall::CloseTracks { .. } => ApiReply::Done,
            ApiCall::Inspect { .. } => ApiReply::Inspected(SessionReply::default()),
        }
    }

    /// Half a second of media, and what befalls those who carry it.
    fn tick(&mut self) {
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in peers {
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            if !self.faults && peer.path_lost {
                peer.path_lost = false;
                self.pull.handle_peer(id, PeerEvent::Connected, self.now);
            } else if peer.connected && !peer.path_lost {
                let session = peer.session.as_ref().and_then(|id| self.sessions.get(id));
                let kinds: Vec<_> =
                    session.map(|session| session.tracks.iter().map(|(kind, _)| *kind).collect()).unwrap_or_default();
                for kind in kinds {
                    self.pull.handle_peer(id, PeerEvent::Media(kind), self.now);
                }
                if self.faults && self.rng.percent(2) {
                    self.peers.get_mut(&id).unwrap().path_lost = true;
                    self.pull.handle_peer(id, PeerEvent::Lost, self.now);
                } else if self.faults && self.rng.percent(1) {
                    self.plan(MS, Happening::Peer(id, PeerEvent::Ended("dtls".to_owned())));
                }
            }
            self.drain();
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Reply(id, reply) => {
                if let Some(session) = self.outstanding.remove(&id) {
                    self.sessions.get_mut(&session).unwrap().outstanding -= 1;
                }
                self.pull.handle_reply(id, reply, self.now);
            }
            Happening::Described(peer, sdp) => self.pull.handle_described(peer, sdp, self.now),
            Happening::Applied(peer) => self.pull.handle_applied(peer, Ok(()), self.now),
            Happening::Peer(id, event) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.connected = event == PeerEvent::Connected;
                    self.pull.handle_peer(id, event, self.now);
                }
            }
        }
        self.drain();
    }

    fn run(&mut self, duration: Duration) -> u64 {
        self.run_until(duration, |_| false)
    }

    fn run_until(&mut self, duration: Duration, done: impl Fn(&Pull) -> bool) -> u64 {
        let until = self.now + duration;
        let mut next_tick = self.now;
        let mut steps = 0;
        while self.now < until && !done(&self.pull) {
            steps += 1;
            let happening = self.due.first_key_value().map(|((at, _), _)| *at);
            let timeout = self.pull.poll_timeout();
            let next = [happening, timeout, Some(next_tick)].into_iter().flatten().min().unwrap();
            self.now = self.now.max(next);
            if next == next_tick {
                next_tick += 500 * MS;
                self.tick();
            } else if happening == Some(next) {
                let (_, happening) = self.due.pop_first().unwrap();
                self.happen(happening);
            } else {
                self.pull.handle_timeout(self.now);
                self.drain();
                assert!(self.pull.poll_timeout().is_none_or(|due| due > self.now), "it does not do what is due");
            }
        }
        steps
    }

    /// From now on everything works; what was held up is answered soon.
    fn end_faults(&mut self) {
        self.faults = false;
        for ((_, _), happening) in std::mem::take(&mut self.due) {
            let after = self.rng.ms(1, 1000);
            self.plan(after, happening);
        }
    }
}

#[test]
fn whatever_fails_it_flows_again_within_ten_seconds_of_the_last_fault_and_loses_no_session() {
    let (mut steps, mut sessions, mut links, mut busiest, mut slowest) = (0, 0, 0, 0, Duration::ZERO);
    for seed in 0..2000 {
        let mut world = World::new(seed);
        world.drain();
        for round in 0..3 {
            world.faults = true;
            let duration = world.rng.ms(1000, 90_000);
            steps += world.run(duration);
            world.end_faults();
            let end = world.now;
            steps += world.run_until(CONVERGES_WITHIN, |pull| *pull.state() == State::Flowing);
            assert_eq!(*world.pull.state(), State::Flowing, "seed {seed} round {round}: {:#?}", world.pull);
            slowest = slowest.max(world.now - end);
            steps += world.run(20 * S);
            assert_eq!(*world.pull.state(), State::Flowing, "seed {seed} round {round}: {:#?}", world.pull);
        }
        world.pull.stop(world.now);
        world.drain();
        world.run_until(60 * S, Pull::is_finished);
        let stats = world.pull.stats();
        assert!(world.pull.is_finished(), "seed {seed}: {:#?}", world.pull);
        assert!(world.peers.is_empty(), "seed {seed}");
        assert_eq!(stats.sessions_made, stats.sessions_closed + stats.sessions_abandoned, "seed {seed}");
        assert!(world.busiest <= CALLS_PER_SECOND_MAX, "seed {seed}: {} calls in one second", world.busiest);
        busiest = busiest.max(world.busiest);
        sessions += stats.sessions_made;
        links += stats.links;
    }
    println!("{steps} steps, {sessions} sessions, {links} links, at most {busiest} calls/s, back within {slowest:?}");
    assert!(steps > 100_000 && links > 1000, "the model lets too little happen: {steps} steps, {links} links");
}
