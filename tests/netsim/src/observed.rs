//! A peer that a run looks over the shoulder of: when an IDR was wanted of the guest, and what came of it.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use guest_relay::rtc::demux::Class;
use guest_relay::rtc::peer::{Delivery, Output, Peer, PeerStats, Received};
use guest_relay::slot::SessionPeer;
use guest_relay_muxer::TrackKind;

/// An IDR was wanted, and something came of it.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    pub since: Instant,
    /// The request before this one, of whatever cause: there are two a second at most.
    pub request_before: Option<Instant>,
    /// A request went out, or the picture came, or the run ended.
    pub until: Instant,
}

/// All wants of a run.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    open: Option<Instant>,
    over: Vec<Want>,
    requests_sent: u64,
    last_request: Option<Instant>,
}

impl Wants {
    pub(crate) fn begin_session(&mut self) {
        (self.requests_sent, self.last_request) = (0, None);
    }

    /// So many requests went out in this session.
    pub(crate) fn record_sent(&mut self, requests: u64, now: Instant) {
        if requests != self.requests_sent {
            self.requests_sent = requests;
            self.end(now);
            self.last_request = Some(now);
        }
    }

    /// Those up to now, the open one too.
    pub(crate) fn all(&self, now: Instant) -> Vec<Want> {
        self.over.iter().copied().chain(self.open.map(|since| self.want(since, now))).collect()
    }

    fn want(&self, since: Instant, until: Instant) -> Want {
        Want { since, request_before: self.last_request, until }
    }

    fn end(&mut self, now: Instant) {
        if let Some(since) = self.open.take() {
            self.over.push(self.want(since, now));
        }
    }
}

/// See the module.
pub(crate) struct Observed {
    peer: Peer,
    wants: Rc<RefCell<Wants>>,
    /// Of the newest call that told it.
    now: Option<Instant>,
}

impl Observed {
    pub(crate) fn new(peer: Peer, wants: Rc<RefCell<Wants>>) -> Observed {
        Observed { peer, wants, now: None }
    }
}

impl SessionPeer for Observed {
    fn handle_datagram(
        &mut self,
        class: Class,
        datagram: &[u8],
        from: SocketAddr,
        now: Instant,
    ) -> Option<Received<'_>> {
        self.peer.handle_datagram(class, datagram, from, now)
    }

    fn handle_batch_end(&mut self, now: Instant) {
        self.now = Some(now);
        self.peer.handle_batch_end(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.peer.handle_timeout(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.peer.poll_output()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.peer.poll_timeout()
    }

    fn has_track(&self, kind: TrackKind) -> bool {
        self.peer.has_track(kind)
    }

    fn delivery(&self, kind: TrackKind) -> Delivery {
        self.peer.delivery(kind)
    }

    fn last_heard(&self) -> Option<Instant> {
        self.peer.last_heard()
    }

    fn stats(&self) -> PeerStats {
        self.peer.stats()
    }

    fn request_keyframe(&mut self, now: Instant) {
        self.wants.borrow_mut().open.get_or_insert(now);
        self.peer.request_keyframe(now);
    }

    fn notify_keyframe(&mut self) {
        if let Some(now) = self.now {
            self.wants.borrow_mut().end(now);
        }
        self.peer.notify_keyframe();
    }

    fn set_max_bitrate(&mut self, max_bitrate_kbps: u32, now: Instant) {
        self.peer.set_max_bitrate(max_bitrate_kbps, now);
    }

    fn set_max_wait(&mut self, kind: TrackKind, max_wait: Duration) {
        self.peer.set_max_wait(kind, max_wait);
    }

    fn close(&mut self, now: Instant) {
        self.peer.close(now);
    }
}
