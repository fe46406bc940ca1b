//! The checks of a controlling agent (RFC 8445 sections 6.1.4, 7.2, 8.1) and the ones that keep consent afterwards
//! (RFC 7675): which request is due when, and what a response means.
//!
//! The peer's candidates are checked in turn; the first that answers is nominated with USE-CANDIDATE (regular
//! nomination), and only the answer to that selects it. Then one check every 5 s +/- 20 % goes to the selected address,
//! and while nothing at all is heard from the peer further ones, so that a dead path is known within seconds: after
//! [`PROBE_AFTER`], then each [`PROBE_INTERVAL`].
//!
//! ```text
//!  a pair   waiting ──its turn──▶ asked ──success──▶ succeeded ──the first of all──▶ nominating ──success──▶ selected
//!              ▲                   │  ▲ again after 0.5, 1, 2, 2 ... s                   │                    │ consent, probes
//!              └─refused: a pause──┴──┴──────────────────refused: a pause────────────────┘                    ▼
//! ```
//!
//! A 487 or a stronger claim by the peer switches the role (sections 7.2.5.1, 7.3.1.1), unless the peer is lite: such a
//! one never controls (§6.1.1), and if we gave way nobody would nominate. Bounds: [`MAX_REMOTE_CANDIDATES`]
//! pairs, [`MAX_OPEN_CHECKS`] open transactions each; refused checks are repeated ever more slowly.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::random::{fill_random, random_u64};
use super::super::round_trip::Smoothed;
use super::super::stun::{Message, MessageClass, RoleAttribute, TransactionId, error_code};

/// Candidates of the peer that are tried; the rest is ignored.
pub const MAX_REMOTE_CANDIDATES: usize = 8;
/// RFC 8445 §5.1.2.1 for a peer-reflexive candidate of component 1 with the highest local preference.
pub const PEER_REFLEXIVE_PRIORITY: u32 = (110 << 24) | (0xFFFF << 8) | 255;

/// RFC 8445 §14.2: Ta, the gap between new checks.
const PACING: Duration = Duration::from_millis(50);
/// RFC 8445 §14.3: RTO is at least this; it doubles up to [`MAX_RETRANSMIT`].
const FIRST_RETRANSMIT: Duration = Duration::from_millis(500);
const MAX_RETRANSMIT: Duration = Duration::from_secs(2);
/// A refused check is repeated after [`PACING`], then after twice that, up to 3.2 s.
const MAX_REFUSAL_DOUBLINGS: u32 = 6;
/// RFC 7675 §5.1: 5 s times 0.8 to 1.2.
const CONSENT_INTERVAL_MS: std::ops::Range<u64> = 4_000..6_000;
/// How long the selected pair may be silent before it is checked out of turn.
pub const PROBE_AFTER: Duration = Duration::from_millis(1_500);
/// The gap between checks while it stays silent.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// Checks of one pair that may wait for their answers: a round trip of 2 s while the pair is probed.
pub const MAX_OPEN_CHECKS: usize = 4;
/// How long the checks may take to come to a pair.
pub const CHECKS_TIMEOUT: Duration = Duration::from_secs(10);

/// A request to send.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) to: SocketAddr,
    pub(super) transaction_id: TransactionId,
    pub(super) role: RoleAttribute,
    pub(super) nominate: bool,
}

/// Which check a response answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pair: usize,
    id: TransactionId,
}

#[derive(Debug)]
struct Pair {
    remote: SocketAddr,
    /// The latest last.
    open: VecDeque<Transaction>,
    succeeded: bool,
    refusals: u32,
    /// A refused check is not repeated before then.
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Transaction {
    id: TransactionId,
    /// The role claimed in the request: a 487 counts only against this one.
    role: RoleAttribute,
    nominate: bool,
    sent_at: Instant,
    /// Sent more than once: its answer says nothing about the round trip.
    repeated: bool,
    resend_at: Instant,
    resend_after: Duration,
}

#[derive(Debug)]
pub(super) struct Checks {
    role: RoleAttribute,
    peer_is_lite: bool,
    pairs: Vec<Pair>,
    /// The next new check may go out then; `None`: not begun.
    next_check_at: Option<Instant>,
    /// A pair is being nominated or was.
    nominating: bool,
    /// Set with the nomination.
    consent: Option<Consent>,
    round_trip: Smoothed,
}

/// The checks of the selected pair.
#[derive(Debug)]
struct Consent {
    due: Instant,
    last_check: Instant,
}

impl Consent {
    fn renewed(now: Instant) -> Self {
        let span = CONSENT_INTERVAL_MS.end - CONSENT_INTERVAL_MS.start;
        let interval = Duration::from_millis(CONSENT_INTERVAL_MS.start + random_u64() % span);
        Self { due: now + interval, last_check: now }
    }

    fn next_check(&self, last_heard: Option<Instant>) -> Instant {
        let silent = last_heard.map_or(self.last_check, |heard| heard + PROBE_AFTER);
        let probe = silent.max(self.last_check + PROBE_INTERVAL);
        probe.min(self.due)
    }
}

impl Checks {
    pub(super) fn new(tie_breaker: u64) -> Self {
        Self {
            role: RoleAttribute::Controlling(tie_breaker),
            peer_is_lite: false,
            pairs: Vec::new(),
            next_check_at: None,
            nominating: false,
            consent: None,
            round_trip: Smoothed::default(),
        }
    }

    pub(super) fn set_peer_lite(&mut self, is_lite: bool) {
        self.peer_is_lite = is_lite;
    }

    /// Whether this began them.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let begins = self.next_check_at.is_none();
        self.next_check_at.get_or_insert(now);
        begins
    }

    pub(super) fn have_begun(&self) -> bool {
        self.next_check_at.is_some()
    }

    pub(super) fn is_controlling(&self) -> bool {
        matches!(self.role, RoleAttribute::Controlling(_))
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip.value()
    }

    /// Adds an address to check, once and up to the bound.
    pub(super) fn learn(&mut self, remote: SocketAddr) {
        let known = self.pairs.iter().any(|pair| pair.remote == remote);
        if !known && self.pairs.len() < MAX_REMOTE_CANDIDATES {
            self.pairs.push(Pair { remote, open: VecDeque::new(), succeeded: false, refusals: 0, not_before: None });
        }
    }

    /// RFC 8445 §7.3.1.1; `false`: answer 487.
    pub(super) fn resolve_role(&mut self, claimed: RoleAttribute) -> bool {
        match (self.role, claimed) {
            (RoleAttribute::Controlling(ours), RoleAttribute::Controlling(theirs)) => {
                if ours >= theirs || self.peer_is_lite {
                    return false;
                }
                self.role = RoleAttribute::Controlled(ours);
                true
            }
            (RoleAttribute::Controlled(ours), RoleAttribute::Controlled(theirs)) => {
                if ours < theirs {
                    return false;
                }
                self.role = RoleAttribute::Controlling(ours);
                true
            }
            _ => true,
        }
    }

    /// The open request that a response from `from` answers.
    pub(super) fn asked(&self, id: TransactionId, from: SocketAddr) -> Option<Asked> {
        let pair = self.pairs.iter().position(|pair| pair.remote == from && pair.open.iter().any(|t| t.id == id))?;
        Some(Asked { pair, id })
    }

    /// Takes an authenticated response; returns the address to select.
    pub(super) fn handle_response(
        &mut self,
        Asked { pair, id }: Asked,
        response: &Message<'_>,
        now: Instant,
    ) -> Option<SocketAddr> {
        let pair = self.pairs.get_mut(pair)?;
        let at = pair.open.iter().position(|open| open.id == id)?;
        let transaction = pair.open.remove(at)?;
        if response.class == MessageClass::Success {
            pair.open.clear();
            pair.succeeded = true;
            pair.refusals = 0;
            if !transaction.repeated {
                self.round_trip.record(now.saturating_duration_since(transaction.sent_at));
            }
            if !transaction.nominate {
                return None;
            }
            self.consent.get_or_insert_with(|| Consent::renewed(now));
            return Some(pair.remote);
        }
        if transaction.nominate {
            self.nominating = false;
        }
        let refused_role = response.error_code == Some(error_code::ROLE_CONFLICT);
        if refused_role && transaction.role == self.role {
            // Section 7.2.5.1: the other role with a new tie-breaker, and again.
            self.role = match self.role {
                RoleAttribute::Controlling(_) if !self.peer_is_lite => RoleAttribute::Controlled(random_u64()),
                _ => RoleAttribute::Controlling(random_u64()),
            };
        }
        pair.succeeded = false;
        pair.not_before = Some(now + PACING * 2_u32.pow(pair.refusals.min(MAX_REFUSAL_DOUBLINGS)));
        pair.refusals = pair.refusals.saturating_add(1);
        None
    }

    /// When [`Checks::poll_check`] will have something.
    pub(super) fn poll_timeout(&self, last_heard: Option<Instant>) -> Option<Instant> {
        if let Some(consent) = &self.consent {
            return Some(consent.next_check(last_heard));
        }
        self.pairs
            .iter()
            .filter_map(|pair| match pair.open.back() {
                Some(transaction) => Some(transaction.resend_at),
                None if pair.succeeded && (self.nominating || !self.is_controlling()) => None,
                None => self.next_check_at.map(|next| pair.not_before.map_or(next, |not_before| next.max(not_before))),
            })
            .min()
    }

    /// The next request that is due; call until `None`.
    pub(super) fn poll_check(
        &mut self,
        selected: Option<SocketAddr>,
        last_heard: Option<Instant>,
        now: Instant,
    ) -> Option<Check> {
        let role = self.role;
        if let Some(consent) = &mut self.consent {
            if now < consent.next_check(last_heard) {
                return None;
            }
            *consent = Consent::renewed(now);
            let pair = self.pairs.iter_mut().find(|pair| Some(pair.remote) == selected)?;
            return Some(pair.start(role, false, now));
        }
        if let Some(pair) = self.pairs.iter_mut().find(|pair| pair.open.back().is_some_and(|t| t.resend_at <= now)) {
            return pair.resend(now);
        }
        let next_check_at = self.next_check_at?;
        if self.is_controlling()
            && !self.nominating
            && let Some(pair) = self.pairs.iter_mut().find(|pair| pair.succeeded)
        {
            self.nominating = true;
            pair.open.clear();
            return Some(pair.start(role, true, now));
        }
        if now < next_check_at {
            return None;
        }
        let pair = self.pairs.iter_mut().find(|pair| {
            let may_start = pair.not_before.is_none_or(|not_before| not_before <= now);
            !pair.succeeded && pair.open.is_empty() && may_start
        })?;
        self.next_check_at = Some(now + PACING);
        Some(pair.start(role, false, now))
    }
}

impl Pair {
    fn start(&mut self, role: RoleAttribute, nominate: bool, now: Instant) -> Check {
        let mut id = TransactionId([0; 12]);
        fill_random(&mut id.0);
        if self.open.len() >= MAX_OPEN_CHECKS {
            self.open.pop_front();
        }
        self.open.push_back(Transaction {
            id,
            role,
            nominate,
            sent_at: now,
            repeated: false,
            resend_at: now + FIRST_RETRANSMIT,
            resend_after: FIRST_RETRANSMIT,
        });
        Check { to: self.remote, transaction_id: id, role, nominate }
    }

    /// The same request again (same transaction id, RFC 8489 §6.2.1).
    fn resend(&mut self, now: Instant) -> Option<Check> {
        let transaction = self.open.back_mut()?;
        transaction.repeated = true;
        transaction.resend_after = (transaction.resend_after * 2).min(MAX_RETRANSMIT);
        transaction.resend_at = now + transaction.resend_after;
        Some(Check {
            to: self.remote,
            transaction_id: transaction.id,
            role: transaction.role,
            nominate: transaction.nominate,
        })
    }
}
