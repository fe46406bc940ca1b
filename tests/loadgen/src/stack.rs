//! One str0m connection with its outputs collected: every mutation is followed by a full drain, as str0m asks.
//!
//! Input: datagrams and time; output: datagrams, events and the next deadline. No socket, no clock.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig, RtcError};

/// A datagram that wants to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    pub to: SocketAddr,
    pub datagram: Vec<u8>,
}

/// A connection and what came out of it.
pub struct Stack {
    /// For changes; [`drain`](Self::drain) follows each.
    pub rtc: Rtc,
    local: SocketAddr,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    deadline: Instant,
    /// What str0m gave up on; it is dead after that.
    failure: Option<RtcError>,
}

impl Stack {
    /// `local` is the bound socket's address and the only candidate.
    pub fn new(config: RtcConfig, local: SocketAddr, now: Instant) -> Self {
        let mut rtc = config.build(now);
        rtc.add_local_candidate(Candidate::host(local, "udp").expect("a bound address is a candidate"));
        Stack { rtc, local, transmits: VecDeque::new(), events: VecDeque::new(), deadline: now, failure: None }
    }

    pub fn is_alive(&self) -> bool {
        self.failure.is_none() && self.rtc.is_alive()
    }

    pub fn handle_datagram(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) {
        // Bytes of no known protocol are not even an input.
        if let Ok(receive) = Receive::new(Protocol::Udp, from, self.local, datagram) {
            self.input(Input::Receive(now, receive));
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.input(Input::Timeout(now));
    }

    fn input(&mut self, input: Input<'_>) {
        if self.failure.is_some() {
            return;
        }
        let handled = self.rtc.handle_input(input);
        self.note(handled);
        self.drain();
    }

    /// To be called after any change that was made to `rtc` directly.
    pub fn drain(&mut self) {
        while self.failure.is_none() {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(deadline)) => {
                    self.deadline = deadline;
                    return;
                }
                Ok(Output::Transmit(transmit)) => self
                    .transmits
                    .push_back(Transmit { to: transmit.destination, datagram: transmit.contents.to_vec() }),
                Ok(Output::Event(event)) => self.events.push_back(event),
                Err(error) => self.note(Err(error)),
            }
        }
    }

    fn note(&mut self, result: Result<(), RtcError>) {
        if let Err(error) = result {
            // A dead connection must not ask for time over and over.
            self.deadline += Duration::from_secs(3600);
            self.failure = Some(error);
        }
    }

    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub fn poll_timeout(&self) -> Instant {
        self.deadline
    }
}
