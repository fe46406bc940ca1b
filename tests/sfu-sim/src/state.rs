//! All sessions: whose datagram it is, what a connection tells, when things end. No socket; time is an argument.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use loadgen::rng::Rng;
use loadgen::stack::Transmit;
use str0m::Event;

use crate::api::ApiError;
use crate::fault::{Fault, Faults};
use crate::forward::Clock;
use crate::ledger::{Ledger, Rule};
use crate::session::{EndReason, Session, TrackStatus};
use crate::times::Times;

/// How many sessions there may be at a time.
pub(crate) const MAX_SESSIONS: usize = 256;
/// How many ended sessions are remembered, to tell 410 from 404.
const MAX_ENDED: usize = 4096;

/// What does not change.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) app_id: String,
    pub(crate) secret: String,
    pub(crate) times: Times,
    pub(crate) padding_every: Option<u32>,
    pub(crate) announce_rtx: bool,
    pub(crate) media_address: SocketAddr,
    pub(crate) turn_key: Option<(String, String)>,
}

/// What is remembered of a session that is no more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) reason: EndReason,
    pub(crate) left: bool,
}

pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) rng: Rng,
    pub(crate) sessions: BTreeMap<String, Session>,
    ended: HashMap<String, End>,
    ended_order: VecDeque<String>,
    pub(crate) faults: Faults,
    pub(crate) ledger: Ledger,
    /// Where what is not STUN belongs to.
    routes: HashMap<SocketAddr, String>,
    pub(crate) clocks: HashMap<String, Clock>,
    /// Something that a waiting call may wait for has happened.
    pub(crate) changed: bool,
}

impl State {
    pub(crate) fn new(settings: Settings, seed: u64) -> State {
        State {
            settings,
            rng: Rng::new(seed),
            sessions: BTreeMap::new(),
            ended: HashMap::new(),
            ended_order: VecDeque::new(),
            faults: Faults::default(),
            ledger: Ledger::default(),
            routes: HashMap::new(),
            clocks: HashMap::new(),
            changed: false,
        }
    }

    /// 410 for a session that has ended, 404 for one that was never there.
    pub(crate) fn session(&mut self, id: &str) -> Result<&mut Session, ApiError> {
        let error = if self.ended.contains_key(id) {
            ApiError::gone()
        } else {
            ApiError::new(404, "not_found", "Session not found")
        };
        self.sessions.get_mut(id).ok_or(error)
    }

    pub(crate) fn end_reason(&self, id: &str) -> Option<EndReason> {
        self.ended.get(id).map(|end| end.reason)
    }

    pub(crate) fn ended(&self) -> impl Iterator<Item = (&String, End)> {
        let order = self.ended_order.iter();
        order.filter_map(|id| Some((id, *self.ended.get(id)?)))
    }

    pub(crate) fn end(&mut self, id: &str, reason: EndReason) {
        let Some(session) = self.sessions.remove(id) else {
            return;
        };
        for session in self.sessions.values_mut() {
            let subscriptions = session.subscriptions.iter_mut();
            for sub in subscriptions.filter(|sub| sub.publisher == id) {
                end_track(&mut sub.status);
            }
        }
        self.routes.retain(|_, session| session != id);
        self.clocks.remove(id);
        if self.ended_order.len() == MAX_ENDED {
            let oldest = self.ended_order.pop_front();
            oldest.map(|oldest| self.ended.remove(&oldest));
        }
        self.ended.insert(id.to_owned(), End { reason, left: session.is_left() });
        self.ended_order.push_back(id.to_owned());
        self.changed = true;
    }

    /// A track is no more, nor are the subscriptions to it.
    fn collect(&mut self, id: &str, track: &str) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        let tracks = session.local.iter_mut();
        tracks.filter(|local| local.name == track).for_each(|local| end_track(&mut local.status));
        self.end_subscriptions(id, track);
        self.changed = true;
    }

    pub(crate) fn end_subscriptions(&mut self, publisher: &str, track: &str) {
        for session in self.sessions.values_mut() {
            let subscriptions = session.subscriptions.iter_mut();
            for sub in subscriptions.filter(|sub| sub.publisher == publisher && sub.track == track) {
                end_track(&mut sub.status);
            }
        }
    }

    pub(crate) fn inject(&mut self, fault: Fault) -> Result<(), ApiError> {
        match fault {
            Fault::None => self.faults.clear(),
            Fault::StopMedia { session, track } => {
                for local in &mut self.session(&session)?.local {
                    if track.as_ref().is_none_or(|track| *track == local.name) {
                        local.stopped = true;
                        local.packets = 0;
                    }
                }
            }
            Fault::ResumeMedia { session } => {
                let tracks = self.session(&session)?.local.iter_mut();
                tracks.for_each(|local| local.stopped = false);
            }
            Fault::KillSession { session } => {
                self.session(&session)?;
                self.end(&session, EndReason::Killed);
            }
            Fault::CollectTrack { session, track } => {
                self.session(&session)?;
                self.collect(&session, &track);
            }
            fault => self.faults.turn_on(fault),
        }
        Ok(())
    }

    /// A datagram from the network. STUN is told apart by its username (RFC 8445 §7.2.2: our ufrag comes first), the rest
    /// by where the latest connectivity check came from.
    pub(crate) fn handle_datagram(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) {
        let id = if datagram.first().is_some_and(|first| *first < 4) {
            self.route_stun(datagram, from, now)
        } else {
            self.routes.get(&from).cloned()
        };
        let session = id.and_then(|id| self.sessions.get_mut(&id));
        let Some(session) = session.filter(|session| session.connects) else {
            return;
        };
        let id = session.id.clone();
        if let Some(transport) = &mut session.transport {
            transport.handle_datagram(datagram, from, now);
        }
        self.handle_events(&id, now);
    }

    fn route_stun(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) -> Option<String> {
        let message = str0m::ice::StunMessage::parse(datagram).ok()?;
        let (ufrag, _) = message.split_username()?;
        let mut sessions = self.sessions.values();
        let session = sessions
            .find(|session| session.transport.as_ref().is_some_and(|transport| transport.local.ufrag == ufrag))?;
        let id = session.id.clone();
        let previous = self.routes.insert(from, id.clone()).filter(|previous| *previous != id);
        let other = previous.and_then(|previous| self.sessions.get(&previous));
        let is_live = |transport: &crate::transport::Transport| now - transport.last_heard < Duration::from_secs(2);
        if other.is_some_and(|other| !other.is_left() && other.transport.as_ref().is_some_and(is_live)) {
            let other = other.map(|other| other.id.clone()).unwrap_or_default();
            let session = self.sessions.get_mut(&id)?;
            if !session.shares_address {
                session.shares_address = true;
                let detail = format!("{from} is session {other}'s too");
                self.ledger.violation(Rule::SharedAddress, Some(&id), detail);
            }
        }
        Some(id)
    }

    /// Does what is due. True when a waiting call should look again.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        let ids: Vec<String> = self.sessions.keys().cloned().collect();
        for id in &ids {
            let transport = self.sessions.get_mut(id).and_then(|session| session.transport.as_mut());
            if let Some(transport) = transport.filter(|transport| transport.stack.poll_timeout() <= now) {
                transport.stack.handle_timeout(now);
            }
            self.handle_events(id, now);
            self.check_lifetimes(id, now);
        }
        std::mem::take(&mut self.changed)
    }

    pub(crate) fn expire_unconnected(&mut self, age: Duration, now: Instant) {
        let is_due = |session: &&Session| {
            let connected = session.transport.as_ref().is_some_and(|transport| transport.connected);
            !connected && now.saturating_duration_since(session.created) >= age
        };
        let due: Vec<String> = self.sessions.values().filter(is_due).map(|session| session.id.clone()).collect();
        for id in due {
            self.end(&id, EndReason::NeverConnected);
        }
    }

    fn check_lifetimes(&mut self, id: &str, now: Instant) {
        let times = self.settings.times;
        let Some(session) = self.sessions.get(id) else {
            return;
        };
        let over = match &session.transport {
            Some(transport) if transport.connected => {
                let lost = now.saturating_duration_since(transport.last_heard) >= times.connectivity;
                lost.then_some(EndReason::ConnectivityLost)
            }
            _ => {
                let expired = now.saturating_duration_since(session.created) >= times.unconnected;
                expired.then_some(EndReason::NeverConnected)
            }
        };
        if let Some(reason) = over {
            self.end(id, reason);
            return;
        }
        if !session.is_connected() {
            return;
        }
        let is_idle = |since: Instant| now.saturating_duration_since(since) >= times.track_idle;
        let idle =
            session.local.iter().filter(|track| track.status == TrackStatus::Active && is_idle(track.idle_since));
        let idle: Vec<String> = idle.map(|track| track.name.clone()).collect();
        for track in idle {
            self.collect(id, &track);
        }
    }

    fn handle_events(&mut self, id: &str, now: Instant) {
        loop {
            let transport = self.sessions.get_mut(id).and_then(|session| session.transport.as_mut());
            let Some(transport) = transport else { return };
            let Some(event) = transport.stack.poll_event() else {
                break;
            };
            match event {
                Event::Connected => self.handle_connected(id, now),
                Event::RtpPacket(packet) => self.forward(id, &packet, now),
                Event::KeyframeRequest(request) => {
                    self.forward_keyframe_request(id, request.mid, request.kind, now);
                }
                Event::Closed => {
                    self.end(id, EndReason::PeerClosed);
                    return;
                }
                _ => {}
            }
        }
        let transport = self.sessions.get(id).and_then(|session| session.transport.as_ref());
        if transport.is_some_and(|transport| !transport.stack.is_alive()) {
            self.end(id, EndReason::Failed);
        }
    }

    fn handle_connected(&mut self, id: &str, now: Instant) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        if let Some(transport) = &mut session.transport {
            transport.connected = true;
        }
        session.local.iter_mut().for_each(|track| track.idle_since = now);
        self.changed = true;
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        let mut sessions = self.sessions.values_mut();
        sessions.find_map(|session| session.transport.as_mut()?.poll_transmit())
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let transports = self.sessions.values().filter_map(|session| session.transport.as_ref());
        transports.map(|transport| transport.stack.poll_timeout()).min()
    }
}

fn end_track(status: &mut TrackStatus) {
    if *status == TrackStatus::Active {
        *status = TrackStatus::Ended;
    }
}
