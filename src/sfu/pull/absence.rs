//! Tracks that the SFU has dropped although the publisher's session lives: it collects a track after 30 s without packets,
//! and what the publisher sends in it from then on goes nowhere. Input: replies to `tracks/new`, and media. Output: the set
//! of such tracks, each time that it changes.

use guest_relay_muxer::TrackKind;

use super::calls::ApiCalls;
use super::interface::Output;

/// Refusals in a row that make a track a dropped one. One or two may come from a corner of the SFU that has not heard of it
/// yet; three take some 4 s, unless the publisher's session says so too.
const REFUSALS: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Absences {
    /// Refusals in a row.
    refused: Vec<(TrackKind, u32)>,
    reported: Vec<TrackKind>,
}

impl Absences {
    /// A reply to a request for the tracks `asked`, of which the publisher's session has not got the `unknown` ones.
    pub(super) fn record_reply(&mut self, asked: &[(TrackKind, String)], unknown: &[TrackKind], calls: &mut ApiCalls) {
        for (kind, _) in asked {
            if unknown.contains(kind) {
                self.record_absence(*kind);
            } else {
                self.refused.retain(|(refused, _)| refused != kind);
            }
        }
        self.report(calls);
    }

    /// The publisher's session lists the track as inactive, after packets of it had come.
    pub(super) fn record_inactive(&mut self, kind: TrackKind, calls: &mut ApiCalls) {
        self.record_absence(kind);
        self.report(calls);
    }

    fn record_absence(&mut self, kind: TrackKind) {
        match self.refused.iter_mut().find(|(refused, _)| *refused == kind) {
            Some((_, times)) => *times = times.saturating_add(1),
            None => self.refused.push((kind, 1)),
        }
    }

    /// Packets of the track came.
    pub(super) fn found(&mut self, kind: TrackKind, calls: &mut ApiCalls) {
        if !self.refused.is_empty() {
            self.refused.retain(|(refused, _)| *refused != kind);
            self.report(calls);
        }
    }

    fn report(&mut self, calls: &mut ApiCalls) {
        let dropped = self.refused.iter().filter(|(_, times)| *times >= REFUSALS).map(|(kind, _)| *kind);
        let dropped: Vec<_> = dropped.collect();
        if dropped != self.reported {
            self.reported.clone_from(&dropped);
            calls.outputs.push_back(Output::Dropped(dropped));
        }
    }
}
