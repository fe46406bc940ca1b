//! One ICE agent (RFC 8445): STUN datagrams in; replies, checks and events out.
//!
//! Two roles. **Lite** (§2.5), towards browsers on the same network: it answers checks, and the pair is the
//! one its controlling peer nominates. **Controlling** ([`checks`]), towards a peer that is itself lite: it sends the
//! checks, nominates, and keeps consent alive (RFC 7675).
//!
//! ```text
//!  lite         waiting ──a check with USE-CANDIDATE────────────────────▶ selected ──no proof any more──▶ expired
//!  controlling  waiting ──begin_checks──▶ checking ──nomination answered──▶ selected ──the same────────▶ expired
//!                  └──30 s──▶ expired        └──10 s──▶ expired
//! ```
//!
//! An address proves itself by an authenticated check or response, for [`CONSENT_TIMEOUT`], and by SRTP, for
//! [`MEDIA_TIMEOUT`]. One whose proofs are over is forgotten; with the last one the agent expires. So media alone keeps a
//! session: GStreamer 1.22 sends Binding Indications beside it and, once connected, no more checks.
//!
//! Until there is media a later nomination selects another address. From then on SRTP does: the newest packet of its SSRC
//! selects the address from which it came, since a guest whose port changed may send checks without USE-CANDIDATE
//! (libdatachannel), and since whoever records a check can send it again from elsewhere.
//!
//! RFC 7675 is about the right to send. What we send to the selected address is no media, but RTCP about the media that
//! comes from there: a small part of it, and only while it comes, or for 30 s after a check. Fresh SRTP is made with the keys of
//! the handshake, so it proves more than a check does, which asks for the ICE password alone. A peer that wants no feedback
//! stops sending.
//!
//! What holds for both:
//! - Only a request with FINGERPRINT, `USERNAME = ours:theirs` and MESSAGE-INTEGRITY made with our password has an
//!   effect or gets a reply. Everything else is met with silence: an unknown ufrag and a wrong password look alike
//!   from outside, and a forged source address is sent nothing. No reply is larger than its request.
//! - Nothing may be sent to an address before a pair is selected, nor after its last proof is over.
//!
//! Bounds: [`MAX_VALIDATED`] addresses, [`checks::MAX_REMOTE_CANDIDATES`] pairs; outputs are drained after each call.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::random::{fill_random, random_u64};
use super::stun::{self, Message, MessageClass, MessageWriter, RoleAttribute, StunError, TransactionId};

pub mod checks;

use checks::Checks;

/// RFC 7675 §5.1: consent ends this long after the last proof of it. It is also how long an agent that does not
/// check itself waits to be checked.
pub const CONSENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an address that does not check proves itself by its last SRTP packet: [`CONSENT_TIMEOUT`] less the longest
/// interval between consent checks (RFC 7675 §5.1). A peer that checks and is gone is thus missed when its consent ends.
pub const MEDIA_TIMEOUT: Duration = Duration::from_secs(24);
/// Addresses of one peer held as validated; the one silent for longest makes room.
pub const MAX_VALIDATED: usize = 8;

const UFRAG_LEN: usize = 8;
const PWD_LEN: usize = 24;
/// RFC 8839 §5.4: `ice-char`, 64 of them, so that a random byte's low six bits choose one evenly.
const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// `ice-ufrag` and `ice-pwd` of one agent.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Names the session; not a secret.
    pub ufrag: String,
    /// Keys MESSAGE-INTEGRITY; a secret.
    pub pwd: String,
}

impl Credentials {
    /// New credentials from the operating system's random source: 48 bits of ufrag, 144 bits of pwd.
    pub fn generate() -> Self {
        let mut random = [0; UFRAG_LEN + PWD_LEN];
        fill_random(&mut random);
        let mut chars =
            random.iter().map(|byte| ICE_CHARS.get(usize::from(byte & 0x3f)).map_or('A', |c| char::from(*c)));
        Self { ufrag: chars.by_ref().take(UFRAG_LEN).collect(), pwd: chars.collect() }
    }

    /// Credentials received in SDP; `None` unless both have the length and characters of RFC 8839 §5.4.
    pub fn parse(ufrag: &str, pwd: &str) -> Option<Self> {
        let is_ice_text =
            |text: &str, min| (min..=256).contains(&text.len()) && text.bytes().all(|c| ICE_CHARS.contains(&c));
        (is_ice_text(ufrag, 4) && is_ice_text(pwd, 22)).then(|| Self { ufrag: ufrag.to_owned(), pwd: pwd.to_owned() })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials {{ ufrag: {:?}, pwd: *** }}", self.ufrag)
    }
}

/// What the agent wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this datagram.
    Transmit {
        /// Destination.
        to: SocketAddr,
        /// A STUN message.
        datagram: Vec<u8>,
    },
    /// An authenticated check or reply came from this address for the first time.
    Validated(SocketAddr),
    /// The address fell out of the list: silent for too long, or pushed out by newer ones.
    Forgotten(SocketAddr),
    /// A nomination chose this address: the handshake goes there. Later [`Agent::selected`] may be where media comes from.
    Selected(SocketAddr),
    /// No address has a proof any more: the session is over, nothing may be sent.
    Expired,
}

/// Why a datagram had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// It is no STUN message.
    Malformed(StunError),
    /// FINGERPRINT is missing.
    NoFingerprint,
    /// USERNAME or MESSAGE-INTEGRITY is missing or wrong.
    NotAuthentic,
    /// A class or method that is not ours to answer, or a response to nothing we asked.
    Unexpected,
    /// The agent has expired.
    Expired,
}

#[derive(Debug, Clone, Copy)]
struct Validated {
    address: SocketAddr,
    /// The last authenticated request or response from there.
    last_proof: Instant,
    /// The last SRTP packet from there that was the newest.
    last_media: Option<Instant>,
}

impl Validated {
    fn proved_until(&self) -> Instant {
        let consent = self.last_proof + CONSENT_TIMEOUT;
        self.last_media.map_or(consent, |media| consent.max(media + MEDIA_TIMEOUT))
    }
}

#[derive(Debug)]
enum Role {
    Lite,
    Full(Checks),
}

/// The state machine; see the module's description.
#[derive(Debug)]
pub struct Agent {
    local: Credentials,
    /// `None` while our offer has no answer.
    remote: Option<Credentials>,
    role: Role,
    /// Since when a first proof is waited for.
    waiting_since: Instant,
    last_heard: Option<Instant>,
    validated: Vec<Validated>,
    selected: Option<SocketAddr>,
    /// A pair has stood, now or before.
    has_selected: bool,
    /// SRTP has selected an address: nominations do so no more.
    follows_media: bool,
    expired: bool,
    outputs: VecDeque<Output>,
}

impl Agent {
    /// A lite agent, controlled for ever (RFC 8445 §6.1.1).
    pub fn lite(local: Credentials, remote: Credentials, now: Instant) -> Self {
        Self::new(local, Some(remote), Role::Lite, now)
    }

    /// A controlling agent that checks `candidates`, in their order, against a lite peer, once told to
    /// [begin](Self::begin_checks).
    pub fn controlling(local: Credentials, remote: Credentials, candidates: &[SocketAddr], now: Instant) -> Self {
        let mut agent = Self::offering(local, now);
        agent.set_remote(remote, candidates, true);
        agent
    }

    /// The controlling agent of an offer of ours; it knows its peer once told by [`Agent::set_remote`].
    pub fn offering(local: Credentials, now: Instant) -> Self {
        Self::new(local, None, Role::Full(Checks::new(random_u64())), now)
    }

    /// Says who the peer is, which of its addresses to check, in this order, and whether it is lite.
    pub fn set_remote(&mut self, remote: Credentials, candidates: &[SocketAddr], is_lite: bool) {
        self.remote = Some(remote);
        if let Role::Full(checks) = &mut self.role {
            checks.set_peer_lite(is_lite);
            candidates.iter().for_each(|address| checks.learn(*address));
        }
    }

    /// Lets a controlling agent send its checks: when the peer has our credentials, since before that it would
    /// ignore them. A lite agent has none to send.
    pub fn begin_checks(&mut self, now: Instant) {
        if let Role::Full(checks) = &mut self.role
            && self.remote.is_some()
            && checks.begin(now)
        {
            self.waiting_since = now;
        }
        self.send_due_checks(now);
    }

    fn new(local: Credentials, remote: Option<Credentials>, role: Role, now: Instant) -> Self {
        Self {
            local,
            remote,
            role,
            waiting_since: now,
            last_heard: None,
            validated: Vec::new(),
            selected: None,
            has_selected: false,
            follows_media: false,
            expired: false,
            outputs: VecDeque::new(),
        }
    }

    /// Our own credentials.
    pub fn local(&self) -> &Credentials {
        &self.local
    }

    /// Where media and handshake may be sent now.
    pub fn selected(&self) -> Option<SocketAddr> {
        self.selected
    }

    /// Whether an authenticated message came from `address` and it has not been forgotten since.
    pub fn is_validated(&self, address: SocketAddr) -> bool {
        self.validated.iter().any(|v| v.address == address)
    }

    /// From a check to its answer, smoothed; known to a controlling agent only.
    pub fn round_trip(&self) -> Option<Duration> {
        match &self.role {
            Role::Lite => None,
            Role::Full(checks) => checks.round_trip(),
        }
    }

    /// When an authenticated packet of the peer came last: a STUN message, or what
    /// [`Agent::record_media`] was told of.
    pub fn last_heard(&self) -> Option<Instant> {
        self.last_heard
    }

    /// Notes that an SRTP or SRTCP packet authenticated that came from `from`, a validated address. Only the newest of its
    /// SSRC proves that the peer is there: what is late may have been kept back, and sent on, by somebody else.
    pub fn record_media(&mut self, from: SocketAddr, is_newest: bool, now: Instant) {
        self.last_heard = Some(now);
        if is_newest && let Some(known) = self.validated.iter_mut().find(|v| v.address == from) {
            known.last_media = Some(now);
            self.follows_media = true;
            self.selected = Some(from);
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes a datagram of the STUN class.
    pub fn handle_datagram(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) -> Result<(), Ignored> {
        if self.expired {
            return Err(Ignored::Expired);
        }
        let message = Message::parse(datagram).map_err(Ignored::Malformed)?;
        if message.method != stun::BINDING {
            return Err(Ignored::Unexpected);
        }
        if !message.has_fingerprint {
            return Err(Ignored::NoFingerprint);
        }
        match message.class {
            MessageClass::Request => self.handle_request(&message, datagram.len(), from, now),
            MessageClass::Success | MessageClass::Error => self.handle_response(&message, from, now),
            // A keep-alive (RFC 8445 §11): unauthenticated, so it proves nothing.
            MessageClass::Indication => Err(Ignored::Unexpected),
        }
    }

    fn handle_request(
        &mut self,
        request: &Message<'_>,
        request_len: usize,
        from: SocketAddr,
        now: Instant,
    ) -> Result<(), Ignored> {
        let Some(remote) = &self.remote else {
            return Err(Ignored::NotAuthentic);
        };
        let names_us = request.username.is_some_and(|username| {
            let mut parts = username.splitn(2, |byte| *byte == b':');
            parts.next() == Some(self.local.ufrag.as_bytes()) && parts.next() == Some(remote.ufrag.as_bytes())
        });
        if !request.is_authentic(self.local.pwd.as_bytes()) || !names_us {
            return Err(Ignored::NotAuthentic);
        }
        let unknown = request.unknown_attributes();
        if !unknown.is_empty() {
            let reply = self
                .reply(MessageClass::Error, request.transaction_id)
                .error_code(stun::error_code::UNKNOWN_ATTRIBUTE)
                .unknown_attributes(unknown);
            self.transmit_reply(reply, request_len, from);
            return Ok(());
        }
        if !self.resolve_role(request.role) {
            let reply =
                self.reply(MessageClass::Error, request.transaction_id).error_code(stun::error_code::ROLE_CONFLICT);
            self.transmit_reply(reply, request_len, from);
            return Ok(());
        }
        let reply = self.reply(MessageClass::Success, request.transaction_id).mapped_address(from);
        self.transmit_reply(reply, request_len, from);
        self.record_proof(from, now);
        let nominated = match &mut self.role {
            Role::Lite => request.use_candidate,
            Role::Full(checks) => {
                checks.learn(from);
                request.use_candidate && !checks.is_controlling()
            }
        };
        if nominated && !(self.follows_media && self.selected.is_some()) {
            self.select(from);
        }
        Ok(())
    }

    /// RFC 8445 §7.3.1.1: whether the request's role goes with ours, after ours gave way if it had to. A lite
    /// agent never does.
    fn resolve_role(&mut self, claimed: Option<RoleAttribute>) -> bool {
        match (&mut self.role, claimed) {
            (_, None) => true,
            (Role::Lite, Some(role)) => matches!(role, RoleAttribute::Controlling(_)),
            (Role::Full(checks), Some(role)) => checks.resolve_role(role),
        }
    }

    fn handle_response(&mut self, response: &Message<'_>, from: SocketAddr, now: Instant) -> Result<(), Ignored> {
        let Role::Full(checks) = &mut self.role else {
            return Err(Ignored::Unexpected);
        };
        // RFC 8445 §7.2.5.2.1: the response must come from where the request went.
        let Some(request) = checks.asked(response.transaction_id, from) else {
            return Err(Ignored::Unexpected);
        };
        let key = self.remote.as_ref().map(|remote| remote.pwd.as_bytes());
        if !key.is_some_and(|key| response.is_authentic(key)) {
            return Err(Ignored::NotAuthentic);
        }
        self.last_heard = Some(now);
        let outcome = checks.handle_response(request, response, now);
        if response.class == MessageClass::Success {
            self.record_proof(from, now);
        }
        if let Some(address) = outcome {
            self.select(address);
        }
        self.send_due_checks(now);
        Ok(())
    }

    fn reply(&self, class: MessageClass, transaction_id: TransactionId) -> MessageWriter {
        MessageWriter::binding(class, transaction_id)
    }

    /// Sends a reply unless it would be larger than what it answers: our port amplifies nothing.
    fn transmit_reply(&mut self, reply: MessageWriter, request_len: usize, to: SocketAddr) {
        let datagram = reply.finish(self.local.pwd.as_bytes());
        if datagram.len() <= request_len {
            self.outputs.push_back(Output::Transmit { to, datagram });
        }
    }

    fn record_proof(&mut self, address: SocketAddr, now: Instant) {
        self.last_heard = Some(now);
        if let Some(known) = self.validated.iter_mut().find(|v| v.address == address) {
            known.last_proof = now;
            return;
        }
        if self.validated.len() >= MAX_VALIDATED {
            let silent_longest = self
                .validated
                .iter()
                .enumerate()
                .filter(|(_, v)| Some(v.address) != self.selected)
                .min_by_key(|(_, v)| v.proved_until())
                .map(|(index, _)| index);
            if let Some(index) = silent_longest {
                let forgotten = self.validated.swap_remove(index);
                self.outputs.push_back(Output::Forgotten(forgotten.address));
            }
        }
        self.validated.push(Validated { address, last_proof: now, last_media: None });
        self.outputs.push_back(Output::Validated(address));
    }

    fn select(&mut self, address: SocketAddr) {
        if self.selected != Some(address) {
            self.has_selected = true;
            self.selected = Some(address);
            self.outputs.push_back(Output::Selected(address));
        }
    }

    /// When [`Agent::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.expired {
            return None;
        }
        let proof_due = self
            .validated
            .iter()
            .map(Validated::proved_until)
            .min()
            .filter(|_| !self.is_still_checking())
            .unwrap_or_else(|| self.first_proof_due());
        match &self.role {
            Role::Lite => Some(proof_due),
            Role::Full(checks) => {
                let check = checks.poll_timeout(self.last_heard);
                Some(check.map_or(proof_due, |check| check.min(proof_due)))
            }
        }
    }

    /// Whether we check, and have come to no pair yet.
    fn is_still_checking(&self) -> bool {
        let checks = matches!(&self.role, Role::Full(checks) if checks.have_begun());
        checks && !self.has_selected
    }

    /// How long an agent waits for its first proof: one that checks knows sooner than one that is checked.
    fn first_proof_due(&self) -> Instant {
        let patience = match &self.role {
            Role::Full(checks) if checks.have_begun() => checks::CHECKS_TIMEOUT,
            _ => CONSENT_TIMEOUT,
        };
        self.waiting_since + patience
    }

    /// Ends what had no proof for too long; sends the checks that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.expired {
            return;
        }
        let had_any = !self.validated.is_empty();
        let outputs = &mut self.outputs;
        self.validated.retain(|v| {
            let alive = now < v.proved_until();
            if !alive {
                outputs.push_back(Output::Forgotten(v.address));
            }
            alive
        });
        self.selected = self.selected.filter(|address| self.validated.iter().any(|v| v.address == *address));
        let waits_too_long = now >= self.first_proof_due();
        let never_came = self.validated.is_empty() && (had_any || waits_too_long);
        if never_came || (waits_too_long && self.is_still_checking()) {
            self.expired = true;
            self.selected = None;
            self.outputs.push_back(Output::Expired);
            return;
        }
        self.send_due_checks(now);
    }

    fn send_due_checks(&mut self, now: Instant) {
        let (Role::Full(checks), Some(remote)) = (&mut self.role, &self.remote) else {
            return;
        };
        while let Some(check) = checks.poll_check(self.selected, self.last_heard, now) {
            let mut request = MessageWriter::binding(MessageClass::Request, check.transaction_id)
                .username(&format!("{}:{}", remote.ufrag, self.local.ufrag))
                .priority(checks::PEER_REFLEXIVE_PRIORITY)
                .role(check.role);
            if check.nominate {
                request = request.use_candidate();
            }
            self.outputs.push_back(Output::Transmit { to: check.to, datagram: request.finish(remote.pwd.as_bytes()) });
        }
    }
}

#[cfg(test)]
mod tests;
