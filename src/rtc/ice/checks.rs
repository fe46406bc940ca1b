//! The checks of a controlling agent against a lite peer (RFC 8445 sections 6.1.4, 7.2, 8.1) and the ones that keep
//! consent afterwards (RFC 7675): which request is due when, and what a response means.
//!
//! The peer's candidates are checked in turn; the first that answers is nominated with USE-CANDIDATE (regular
//! nomination), and only the answer to that selects it. Then one check every 5 s +/- 20 % goes to the selected address.
//! A 487 or a stronger claim by the peer switches the role (section 7.2.5.1, 7.3.1.1). Bounds:
//! [`MAX_REMOTE_CANDIDATES`] pairs, one open transaction each.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::stun::{Class, Message, RoleAttribute, TransactionId, error_code};
use super::{fill_random, random_u64};

/// Candidates of the peer that are tried; the rest is ignored.
pub const MAX_REMOTE_CANDIDATES: usize = 8;
/// RFC 8445 section 5.1.2.1 for a peer-reflexive candidate of component 1 with the highest local preference.
pub const PEER_REFLEXIVE_PRIORITY: u32 = (110 << 24) | (0xFFFF << 8) | 255;

/// RFC 8445 section 14.2: Ta, the gap between new checks.
const PACING: Duration = Duration::from_millis(50);
/// RFC 8445 section 14.3: RTO is at least this; it doubles up to [`MAX_RETRANSMIT`].
const FIRST_RETRANSMIT: Duration = Duration::from_millis(500);
const MAX_RETRANSMIT: Duration = Duration::from_secs(2);
/// RFC 7675 section 5.1: 5 s times 0.8 to 1.2.
const CONSENT_INTERVAL_MS: std::ops::Range<u64> = 4_000..6_000;

/// A request to send.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) to: SocketAddr,
    pub(super) transaction_id: TransactionId,
    pub(super) role: RoleAttribute,
    pub(super) nominate: bool,
}

/// Which pair a response belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct PairIndex(usize);

#[derive(Debug)]
struct Pair {
    remote: SocketAddr,
    transaction: Option<Transaction>,
    succeeded: bool,
}

#[derive(Debug)]
struct Transaction {
    id: TransactionId,
    /// The role claimed in the request: a 487 counts only against this one.
    role: RoleAttribute,
    nominate: bool,
    resend_at: Instant,
    resend_after: Duration,
}

#[derive(Debug)]
pub(super) struct Checks {
    role: RoleAttribute,
    pairs: Vec<Pair>,
    /// The next new check may go out then; `None`: not begun.
    next_check_at: Option<Instant>,
    /// A pair is being nominated or was.
    nominating: bool,
    consent_at: Option<Instant>,
}

impl Checks {
    pub(super) fn new(candidates: &[SocketAddr], tie_breaker: u64) -> Self {
        let mut checks = Self {
            role: RoleAttribute::Controlling(tie_breaker),
            pairs: Vec::new(),
            next_check_at: None,
            nominating: false,
            consent_at: None,
        };
        candidates.iter().for_each(|address| checks.learn(*address));
        checks
    }

    pub(super) fn begin(&mut self, now: Instant) {
        self.next_check_at.get_or_insert(now);
    }

    pub(super) fn is_controlling(&self) -> bool {
        matches!(self.role, RoleAttribute::Controlling(_))
    }

    /// Adds an address to check, once and up to the bound.
    pub(super) fn learn(&mut self, remote: SocketAddr) {
        let known = self.pairs.iter().any(|pair| pair.remote == remote);
        if !known && self.pairs.len() < MAX_REMOTE_CANDIDATES {
            self.pairs.push(Pair {
                remote,
                transaction: None,
                succeeded: false,
            });
        }
    }

    /// RFC 8445 section 7.3.1.1; `false`: answer 487.
    pub(super) fn resolve_role(&mut self, claimed: RoleAttribute) -> bool {
        match (self.role, claimed) {
            (RoleAttribute::Controlling(ours), RoleAttribute::Controlling(theirs)) => {
                if ours >= theirs {
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

    /// The pair whose open request a response from `from` answers.
    pub(super) fn asked(&self, id: TransactionId, from: SocketAddr) -> Option<PairIndex> {
        self.pairs
            .iter()
            .position(|pair| {
                pair.remote == from && pair.transaction.as_ref().is_some_and(|t| t.id == id)
            })
            .map(PairIndex)
    }

    /// Takes an authenticated response; returns the address to select.
    pub(super) fn handle_response(
        &mut self,
        PairIndex(index): PairIndex,
        response: &Message<'_>,
        now: Instant,
    ) -> Option<SocketAddr> {
        let pair = self.pairs.get_mut(index)?;
        let transaction = pair.transaction.take()?;
        match response.class {
            Class::Success => {
                pair.succeeded = true;
                if transaction.nominate {
                    self.consent_at.get_or_insert(now + consent_interval());
                    return Some(pair.remote);
                }
                None
            }
            _ => {
                if transaction.nominate {
                    self.nominating = false;
                }
                if response.error_code == Some(error_code::ROLE_CONFLICT)
                    && transaction.role == self.role
                {
                    // Section 7.2.5.1: the other role with a new tie-breaker, and again.
                    self.role = match self.role {
                        RoleAttribute::Controlling(_) => RoleAttribute::Controlled(random_u64()),
                        RoleAttribute::Controlled(_) => RoleAttribute::Controlling(random_u64()),
                    };
                }
                pair.succeeded = false;
                None
            }
        }
    }

    /// When [`Checks::poll_check`] will have something.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if let Some(consent_at) = self.consent_at {
            return Some(consent_at);
        }
        self.pairs
            .iter()
            .filter_map(|pair| match &pair.transaction {
                Some(transaction) => Some(transaction.resend_at),
                None if pair.succeeded && (self.nominating || !self.is_controlling()) => None,
                None => self.next_check_at,
            })
            .min()
    }

    /// The next request that is due; call until `None`.
    pub(super) fn poll_check(
        &mut self,
        selected: Option<SocketAddr>,
        now: Instant,
    ) -> Option<Check> {
        if let Some(consent_at) = self.consent_at {
            if now < consent_at {
                return None;
            }
            self.consent_at = Some(now + consent_interval());
            let role = self.role;
            let pair = self
                .pairs
                .iter_mut()
                .find(|pair| Some(pair.remote) == selected)?;
            return Some(pair.start(role, false, now));
        }
        let role = self.role;
        if let Some(pair) = self.pairs.iter_mut().find(|pair| {
            pair.transaction
                .as_ref()
                .is_some_and(|t| t.resend_at <= now)
        }) {
            return pair.resend(now);
        }
        if self.is_controlling()
            && !self.nominating
            && let Some(pair) = self.pairs.iter_mut().find(|pair| pair.succeeded)
        {
            self.nominating = true;
            return Some(pair.start(role, true, now));
        }
        if now < self.next_check_at? {
            return None;
        }
        let pair = self
            .pairs
            .iter_mut()
            .find(|pair| !pair.succeeded && pair.transaction.is_none())?;
        self.next_check_at = Some(now + PACING);
        Some(pair.start(role, false, now))
    }
}

impl Pair {
    fn start(&mut self, role: RoleAttribute, nominate: bool, now: Instant) -> Check {
        let mut id = TransactionId([0; 12]);
        fill_random(&mut id.0);
        self.transaction = Some(Transaction {
            id,
            role,
            nominate,
            resend_at: now + FIRST_RETRANSMIT,
            resend_after: FIRST_RETRANSMIT,
        });
        Check {
            to: self.remote,
            transaction_id: id,
            role,
            nominate,
        }
    }

    /// The same request again (same transaction id, RFC 8489 section 6.2.1).
    fn resend(&mut self, now: Instant) -> Option<Check> {
        let transaction = self.transaction.as_mut()?;
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

fn consent_interval() -> Duration {
    let span = CONSENT_INTERVAL_MS.end - CONSENT_INTERVAL_MS.start;
    Duration::from_millis(CONSENT_INTERVAL_MS.start + random_u64() % span)
}
