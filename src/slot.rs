//! One slot: an input of the mixer, with the sessions of its guest, the relay behind them, and what they tell each other.
//!
//! ```text
//!   prepare ──▶ prepared ──takes the slot──▶ live ──leave, the peer's end, a newer session──▶ Event::Ended
//!
//!   datagram ─▶ peer ─RTP, sender reports─▶ relay ─▶ write_buffer ─▶ RTMP server
//!      Transmit ◀─┘ ◀──────keyframe needed────┘ ◀─────handle_rtmp──────┘
//! ```
//!
//! A slot has at most one *live* session, whose media is relayed, and one *prepared* one, which takes its place. Each is
//! known by its [`SessionKey`]; whoever reads the socket tells for each datagram whose it is and of which [`Class`].
//!
//! The driver hands in all inputs of a wake-up, then calls [`SlotMachine::handle_timeout`], which is due at once after each
//! input, then drains [`SlotMachine::poll_output`], writes [`SlotMachine::write_buffer`] to the RTMP connection, and comes back
//! at [`SlotMachine::poll_timeout`]. Sans-IO: `now` is an argument.
//!
//! One slot is the unit of failure: a driver that catches a panic out of any of these calls makes the slot anew, and no
//! other slot notices.
//!
//! Bounds: two sessions, one relay; the output queue holds what the inputs between two calls of `handle_timeout` produced.

mod bridge;
mod freezes;
mod handover;
mod rates;
mod relay;
mod session;
mod wait;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use guest_relay_muxer::TrackKind;
use guest_relay_muxer::bytes::Writer;

use crate::deadline::{earliest, is_due};
use crate::guest::{SessionKey, Signs, Slot, State};
use crate::rtc::demux::Class;
use crate::rtc::peer::{self, EndReason, Peer, PeerStats};
use crate::rtc::sdp::OfferError;
use crate::rtmp;

pub use handover::{AWAY_MAX, AdoptError, STATE_MAX};
use relay::{Joined, Relay};
pub use relay::{RelayConfig, RelaySnapshot, RtmpInput};
pub use session::{SessionEnd, SessionPeer};

/// How often session and relay agree on how long a packet is waited for: round trip and jitter are smoothed over as long.
const AGREE_INTERVAL: Duration = Duration::from_millis(500);

/// How often packets that come are told of.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);

/// A session that is to take the slot.
pub struct Joining<P: ?Sized = Peer> {
    pub key: SessionKey,
    /// The guest's session, which several connections may serve one after the other; `key` where there is only this one.
    pub guest: SessionKey,
    /// The guest's session before, where the guest proved to have had it: its picture stands until this one's comes.
    pub continues: Option<SessionKey>,
    pub peer: Box<P>,
    /// The guest sends pictures, even if the peer's first description should lack them.
    pub video: bool,
    /// Packets that come of it are told as [`Event::Media`].
    pub announces: bool,
}

/// A task for the driver.
#[derive(Debug)]
pub enum Output {
    /// Send this datagram over the session's socket.
    Transmit {
        key: SessionKey,
        to: SocketAddr,
        datagram: Vec<u8>,
    },
    /// Datagrams from this address are the session's.
    AddressValidated {
        key: SessionKey,
        address: SocketAddr,
    },
    /// They are not the session's any more.
    AddressForgotten {
        key: SessionKey,
        address: SocketAddr,
    },
    /// Open a TCP connection to the RTMP server; [`RtmpInput::Connected`] or [`RtmpInput::Disconnected`] tells the outcome.
    Connect,
    /// Close the TCP connection, or give up opening it.
    Disconnect,
    Event(Event),
}

/// An event of the slot.
#[derive(Debug)]
pub enum Event {
    /// ICE and DTLS of the session are done.
    Connected { key: SessionKey },
    /// A packet of a track came: the first one of a second.
    Media { key: SessionKey, kind: TrackKind },
    /// Nothing authentic came of the session for [`peer::QUIET_AFTER`]: its path may be lost.
    Quiet { key: SessionKey },
    /// Something authentic came after [`Event::Quiet`].
    Heard { key: SessionKey },
    /// The session is over: its socket and its routes are not needed any more. Its last datagrams come before this.
    Ended { key: SessionKey, reason: SessionEnd },
    /// The RTMP side changed.
    Rtmp(rtmp::Event),
    /// The guest's state changed.
    State(State),
}

/// One slot as it is now.
#[derive(Debug)]
pub struct Snapshot {
    pub state: State,
    /// How long the publication was kept for an absent guest, in all.
    pub held: Duration,
    /// The live session.
    pub session: Option<SessionSnapshot>,
    pub relay: RelaySnapshot,
}

#[derive(Debug)]
pub struct SessionSnapshot {
    pub key: SessionKey,
    pub stats: PeerStats,
}

/// Why a further offer of a session was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReofferError {
    SessionOver,
    Offer(OfferError),
}

impl fmt::Display for ReofferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SessionOver => f.write_str("the session is over"),
            Self::Offer(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReofferError {}

struct Session<P: ?Sized> {
    key: SessionKey,
    guest: SessionKey,
    continues: Option<SessionKey>,
    peer: Box<P>,
    video: bool,
    announces: bool,
    announced: [Announced; 2],
}

/// Whether a track's packets have to be told of.
#[derive(Clone, Copy, Default)]
struct Announced {
    /// A packet came that was not looked at yet.
    came: bool,
    /// Not before.
    next: Option<Instant>,
}

fn index(kind: TrackKind) -> usize {
    match kind {
        TrackKind::Audio => 0,
        TrackKind::Video => 1,
    }
}

/// The state machine; see the module.
pub struct SlotMachine<P: ?Sized = Peer> {
    /// For log lines.
    slot: Slot,
    live: Option<Session<P>>,
    prepared: Option<Session<P>>,
    relay: Relay,
    /// When session and relay agree anew.
    agree_at: Instant,
    /// An input came whose consequences [`SlotMachine::handle_timeout`] has not carried on yet.
    unsettled: Option<Instant>,
    /// When something of the sessions' or of the relay's media is due.
    deadline: Option<Instant>,
    /// When something of the RTMP connection is due: what the kernel takes moves this alone.
    rtmp_deadline: Option<Instant>,
    /// The state last reported.
    state: State,
    /// Since when the publication is kept for an absent guest, and for how long it was before.
    holding_since: Option<Instant>,
    held: Duration,
    outputs: VecDeque<Output>,
    /// The next datagram has the slot panic.
    #[cfg(test)]
    pub(crate) panics: bool,
}

impl<P: SessionPeer + ?Sized> SlotMachine<P> {
    pub fn new(slot: Slot, config: RelayConfig, now: Instant) -> Self {
        Self {
            slot,
            live: None,
            prepared: None,
            relay: Relay::new(config, now),
            agree_at: now,
            // A slot that is published without a guest begins at once.
            unsettled: Some(now),
            deadline: None,
            rtmp_deadline: None,
            state: State::Absent,
            holding_since: None,
            held: Duration::ZERO,
            outputs: VecDeque::new(),
            #[cfg(test)]
            panics: false,
        }
    }

    /// A session is to take the slot. One that was prepared before is over.
    pub fn prepare(&mut self, joining: Joining<P>, now: Instant) {
        if let Some(session) = self.prepared.take() {
            self.end_session(session, SessionEnd::Replaced, now);
        }
        let Joining { key, guest, continues, peer, video, announces } = joining;
        self.prepared = Some(Session { key, guest, continues, peer, video, announces, announced: Default::default() });
        self.unsettled = Some(now);
    }

    /// Ends the session, if the slot has it; false when it has not.
    pub fn leave(&mut self, key: SessionKey, reason: SessionEnd, now: Instant) -> bool {
        if let Some(session) = self.prepared.take_if(|session| session.key == key) {
            self.end_session(session, reason, now);
            return true;
        }
        let Some(session) = self.live.take_if(|session| session.key == key) else {
            return false;
        };
        self.relay.end_source(session.peer.last_heard(), now);
        self.end_session(session, reason, now);
        true
    }

    /// The guest left for good: the guest's sessions end, and whoever was shown of them is not shown any more. False when the
    /// slot has nothing of this guest.
    pub fn vacate(&mut self, guest: SessionKey, now: Instant) -> bool {
        let of_guest = |session: &mut Session<P>| session.guest == guest;
        let mut had = false;
        if let Some(session) = self.prepared.take_if(of_guest) {
            self.end_session(session, SessionEnd::Left, now);
            had = true;
        }
        if let Some(session) = self.live.take_if(of_guest) {
            self.end_session(session, SessionEnd::Left, now);
            had = true;
        }
        if self.relay.guest() == Some(guest) {
            self.relay.vacate(now);
            self.unsettled = Some(now);
            had = true;
        }
        had
    }

    /// Whether the slot is published without a guest too, from now on.
    pub fn set_idle(&mut self, idle: bool, now: Instant) {
        self.relay.set_idle(idle, now);
        self.unsettled = Some(now);
    }

    /// Ends every session, and leaves the publication as it is.
    pub fn end_sessions(&mut self, now: Instant) {
        for key in self.session_keys() {
            self.leave(key, SessionEnd::Shutdown, now);
        }
    }

    /// What another process needs to go on in the publication on the same connection, which nothing may be written to any
    /// more. None when there is nothing that can be gone on in: that is closed. `clock`: since the boot.
    pub fn hand_over(&self, clock: Duration, now: Instant) -> Option<Vec<u8>> {
        let write = |out: &mut Writer<&mut Vec<u8>>| self.relay.hand_over(out, now);
        handover::seal(self.relay.target(), clock, write)
    }

    /// Goes on, with a slot that is as new, in the publication of another process ([`SlotMachine::hand_over`]): it is held from
    /// now on. `clock`: since the boot. An error changes nothing.
    pub fn adopt(&mut self, state: &[u8], clock: Duration, now: Instant) -> Result<(), AdoptError> {
        if self.session_keys().next().is_some() || self.relay.is_published() {
            return Err(AdoptError::InUse);
        }
        let (mut state, away) = handover::open(state, self.relay.target(), clock)?;
        let relay = self.relay.adopt(&mut state, away, now)?;
        handover::end(&state)?;
        self.relay = relay;
        (self.unsettled, self.deadline) = (Some(now), Some(now));
        Ok(())
    }

    /// Ends every session and the publication, with whatever waits to be written.
    pub fn close(&mut self, now: Instant) {
        self.end_sessions(now);
        self.relay.release(now);
        self.unsettled = Some(now);
    }

    /// The sessions there are, the prepared one first.
    pub fn session_keys(&self) -> impl Iterator<Item = SessionKey> + use<P> {
        let key = |session: &Session<P>| session.key;
        [self.prepared.as_ref().map(key), self.live.as_ref().map(key)].into_iter().flatten()
    }

    /// A datagram of this session came from `from` at `now`. Those of other sessions are dropped.
    pub fn handle_datagram(&mut self, key: SessionKey, class: Class, datagram: &[u8], from: SocketAddr, now: Instant) {
        #[cfg(test)]
        assert!(!self.panics, "on purpose");
        self.unsettled = Some(now);
        let Self { live, prepared, relay, .. } = self;
        if let Some(session) = live.as_mut().filter(|session| session.key == key) {
            if let Some(received) = session.peer.handle_datagram(class, datagram, from, now) {
                session.announced[index(received.kind)].came = true;
                for packet in received.packets() {
                    relay.handle_rtp(received.kind, &packet, now);
                }
            }
        } else if let Some(session) = prepared.as_mut().filter(|session| session.key == key) {
            // The slot is not this session's yet, so its media goes nowhere.
            session.peer.handle_datagram(class, datagram, from, now);
        }
    }

    /// A change of the RTMP connection.
    pub fn handle_rtmp(&mut self, input: RtmpInput<'_>, now: Instant) {
        self.relay.handle_rtmp(input, now);
        self.rtmp_deadline = self.relay.rtmp_timeout();
        // Bytes that the kernel took change nothing else, as a rule.
        if !matches!(input, RtmpInput::Written(_)) || self.relay.has_output() {
            self.unsettled = Some(now);
        }
    }

    /// Bytes for the RTMP server; [`RtmpInput::Written`] tells how many of them the kernel took.
    pub fn write_buffer(&mut self) -> &[u8] {
        self.relay.write_buffer()
    }

    /// Limits the guest's video from now on.
    pub fn set_max_bitrate(&mut self, max_bitrate_kbps: u32, now: Instant) {
        for session in [&mut self.live, &mut self.prepared].into_iter().flatten() {
            session.peer.set_max_bitrate(max_bitrate_kbps, now);
            self.unsettled = Some(now);
        }
    }

    /// Asks the guest for a keyframe, since a reader has joined; false while no picture of the guest's goes out. The session
    /// limits how often a request leaves.
    pub fn request_keyframe(&mut self, now: Instant) -> bool {
        let shows_picture = self.relay.shows_picture();
        let Some(session) =
            self.live.as_mut().filter(|session| shows_picture && session.peer.has_track(TrackKind::Video))
        else {
            return false;
        };
        session.peer.request_keyframe(now);
        self.unsettled = Some(now);
        true
    }

    /// The session that has the slot, or takes it, sends pictures.
    pub fn sends_video(&self) -> bool {
        let newest = self.prepared.as_ref().or(self.live.as_ref());
        newest.is_some_and(|session| session.peer.has_track(TrackKind::Video))
    }

    /// Carries on what the inputs since the last call led to, and does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = is_due(self.deadline, now) || is_due(self.rtmp_deadline, now);
        self.take_slot(now);
        self.agree_on_wait(now);
        for session in [&mut self.live, &mut self.prepared].into_iter().flatten() {
            session.peer.handle_batch_end(now);
            if due {
                session.peer.handle_timeout(now);
            }
        }
        if due {
            self.relay.handle_timeout(now);
        }
        self.drain_sessions(now);
        while self.drain_relay(now) {
            self.drain_sessions(now);
        }
        self.report_state(now);
        self.unsettled = None;
        let of_peer = |session: &Option<Session<P>>| session.as_ref().and_then(|session| session.peer.poll_timeout());
        self.deadline = earliest([of_peer(&self.live), of_peer(&self.prepared), self.relay.media_timeout()]);
        self.rtmp_deadline = self.relay.rtmp_timeout();
    }

    /// When [`SlotMachine::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        earliest([self.unsettled, self.deadline, self.rtmp_deadline])
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The facts that the guest's state is derived from.
    pub fn signs(&self) -> Signs {
        Signs {
            session: self.live.is_some() || self.prepared.is_some(),
            receiving: self.relay.is_receiving(),
            publication: self.relay.has_media(),
            rtmp_live: self.relay.rtmp_state() == rtmp::State::Live,
        }
    }

    pub fn snapshot(&self, now: Instant) -> Snapshot {
        Snapshot {
            state: self.state,
            held: self.held(now),
            session: self
                .live
                .as_ref()
                .map(|session| SessionSnapshot { key: session.key, stats: session.peer.stats() }),
            relay: self.relay.snapshot(now),
        }
    }

    /// The peer of the live session.
    pub fn peer(&self) -> Option<&P> {
        self.live.as_ref().map(|session| &*session.peer)
    }

    /// The prepared session takes the slot, and the one that has it is over.
    fn take_slot(&mut self, now: Instant) {
        let Some(session) = self.prepared.take() else {
            return;
        };
        if let Some(former) = self.live.take() {
            // Of one that has sent nothing, nothing is held; what is prepared for it serves the next one.
            if self.relay.has_media() {
                self.relay.end_source(former.peer.last_heard(), now);
            }
            self.end_session(former, SessionEnd::Replaced, now);
        }
        let Session { guest, continues, video, .. } = session;
        self.relay.begin_source(Joined { guest, continues, video }, now);
        self.agree_at = now;
        self.live = Some(session);
    }

    /// The last word of a session, which the slot has no more.
    fn end_session(&mut self, mut session: Session<P>, reason: SessionEnd, now: Instant) {
        log::debug!("slot {}: the counters of session {}: {:?}", self.slot.0, session.key, session.peer.stats());
        session.peer.close(now);
        while let Some(output) = session.peer.poll_output() {
            if let peer::Output::Transmit { to, datagram } = output {
                self.outputs.push_back(Output::Transmit { key: session.key, to, datagram });
            }
        }
        self.outputs.push_back(Output::Event(Event::Ended { key: session.key, reason }));
        self.unsettled = Some(now);
    }

    /// How long a missing packet is waited for is one figure for both who wait: the session, which asks for it again, and
    /// the muxer, which then gives it up. It follows what the path does to packets.
    fn agree_on_wait(&mut self, now: Instant) {
        let Some(session) = self.live.as_mut().filter(|_| now >= self.agree_at) else {
            return;
        };
        self.agree_at = now + AGREE_INTERVAL;
        for kind in [TrackKind::Audio, TrackKind::Video] {
            let max_wait = self.relay.set_delivery(kind, session.peer.delivery(kind));
            session.peer.set_max_wait(kind, max_wait);
        }
    }

    fn drain_sessions(&mut self, now: Instant) {
        if let Some(session) = &mut self.live
            && let Some(reason) = session.drain(Some(&mut self.relay), &mut self.outputs, self.slot, now)
        {
            let key = session.key;
            self.leave(key, SessionEnd::Peer(reason), now);
        }
        if let Some(session) = &mut self.prepared
            && let Some(reason) = session.drain(None, &mut self.outputs, self.slot, now)
        {
            let key = session.key;
            self.leave(key, SessionEnd::Peer(reason), now);
        }
    }

    /// Whether the relay wants something of the session.
    fn drain_relay(&mut self, now: Instant) -> bool {
        let mut asked = false;
        while let Some(output) = self.relay.poll_output() {
            match output {
                relay::Output::KeyframeReceived => {
                    if let Some(session) = &mut self.live {
                        session.peer.notify_keyframe();
                    }
                }
                relay::Output::KeyframeNeeded => {
                    if let Some(session) = &mut self.live {
                        session.peer.request_keyframe(now);
                        asked = true;
                    }
                }
                relay::Output::Connect => self.outputs.push_back(Output::Connect),
                relay::Output::Disconnect => self.outputs.push_back(Output::Disconnect),
                relay::Output::Event(event) => self.outputs.push_back(Output::Event(Event::Rtmp(event))),
            }
        }
        asked
    }

    fn report_state(&mut self, now: Instant) {
        let state = State::of(self.signs());
        if state != self.state {
            self.held = self.held(now);
            self.holding_since = (state == State::Holding).then_some(now);
            self.state = state;
            self.outputs.push_back(Output::Event(Event::State(state)));
        }
    }

    /// How long the publication was kept for an absent guest, in all.
    fn held(&self, now: Instant) -> Duration {
        self.held + self.holding_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

impl SlotMachine<Peer> {
    /// The other side describes a session anew, that goes on. Returns our answer.
    pub fn handle_offer(&mut self, key: SessionKey, offer: &str, now: Instant) -> Result<String, ReofferError> {
        let sessions = [&mut self.live, &mut self.prepared].into_iter().flatten();
        let session = sessions.filter(|session| session.key == key).last().ok_or(ReofferError::SessionOver)?;
        self.unsettled = Some(now);
        session.peer.handle_offer(offer, now).map_err(ReofferError::Offer)
    }
}

impl<P: SessionPeer + ?Sized> Session<P> {
    /// Carries the session's outputs on; how it ended, if it did. `relay`: the session is live.
    fn drain(
        &mut self,
        mut relay: Option<&mut Relay>,
        outputs: &mut VecDeque<Output>,
        slot: Slot,
        now: Instant,
    ) -> Option<EndReason> {
        let (key, slot) = (self.key, slot.0);
        let mut ended = None;
        while let Some(output) = self.peer.poll_output() {
            let event = match output {
                peer::Output::Transmit { to, datagram } => {
                    outputs.push_back(Output::Transmit { key, to, datagram });
                    continue;
                }
                peer::Output::Event(event) => event,
            };
            match event {
                peer::Event::AddressValidated(address) => outputs.push_back(Output::AddressValidated { key, address }),
                peer::Event::AddressForgotten(address) => outputs.push_back(Output::AddressForgotten { key, address }),
                peer::Event::Connected { .. } => outputs.push_back(Output::Event(Event::Connected { key })),
                peer::Event::SenderReport { kind, ntp_time, rtp_time } => {
                    if let Some(relay) = &mut relay {
                        relay.handle_sender_report(kind, ntp_time, rtp_time, now);
                    }
                }
                // Senders say so when a track is muted or a camera is off, and go on later: the silence is bridged.
                peer::Event::Bye { kind } => log::debug!("slot {slot}: the sender ended its {kind:?} stream"),
                peer::Event::UnexpectedCodec { kind, payload_type, codec } => {
                    log::warn!(
                        "slot {slot}: the sender's {kind:?} is {codec} (payload type {payload_type}), which is not taken"
                    );
                }
                peer::Event::Quiet => {
                    log::debug!("slot {slot}: nothing heard from the sender for {:?}", peer::QUIET_AFTER);
                    outputs.push_back(Output::Event(Event::Quiet { key }));
                }
                peer::Event::Heard => outputs.push_back(Output::Event(Event::Heard { key })),
                peer::Event::Ended(reason) => ended = Some(reason),
            }
        }
        // Behind `Connected`, where both came at once: a pull takes no notice of media before it.
        if self.announces {
            self.announce(outputs, now);
        }
        ended
    }

    /// Tells of tracks of which the first packet of a second came. A packet within the second is no news of the next one.
    fn announce(&mut self, outputs: &mut VecDeque<Output>, now: Instant) {
        let key = self.key;
        for (kind, announced) in [TrackKind::Audio, TrackKind::Video].into_iter().zip(&mut self.announced) {
            if std::mem::take(&mut announced.came) && announced.next.is_none_or(|next| next <= now) {
                announced.next = Some(now + ANNOUNCE_INTERVAL);
                outputs.push_back(Output::Event(Event::Media { key, kind }));
            }
        }
    }
}

#[cfg(test)]
mod tests;
