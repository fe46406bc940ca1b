//! One line of the table: what a scenario came to, and which of its criteria it missed.

use std::fmt;
use std::time::Duration;

use guest_relay::rtmp;

use crate::ledger::Figures;
use crate::world::World;

/// A scenario's result.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub name: &'static str,
    pub figures: Figures,
    /// PLIs and FIRs that the guest saw.
    pub requests: u64,
    /// What else is worth a word.
    pub notes: Vec<String>,
    pub misses: Vec<String>,
    /// No more was measured than how many frames came.
    pub frames_only: bool,
}

/// How soon a guest is seen who has nobody to wait for.
const FIRST_PICTURE_WITHIN: Duration = Duration::from_secs(2);

impl Row {
    /// The figures of a world that has come to its end, held against what holds in every scenario.
    pub fn of(name: &'static str, world: &World) -> Row {
        let mut row =
            Row { name, figures: world.ledger().figures(), requests: world.keyframe_requests(), ..Row::default() };
        let corrupt = row.figures.corrupt;
        row.require(corrupt == 0, || format!("{corrupt} corrupt pictures"));
        let first = row.figures.first_after;
        row.require(first.is_some_and(|first| first <= FIRST_PICTURE_WITHIN), || format!("first picture: {first:?}"));
        for report in world.server().reports() {
            let end = report.end.clone().unwrap_or_default();
            row.require(!report.refused, || format!("refused: {end}"));
            let count = report.violations.len();
            row.require(count == 0, || format!("{count} violations: {}", report.violations.join("; ").escape_debug()));
            let late = report.late_clocks.join("; ");
            row.require(late.is_empty() || world.is_disturbed(), || late);
            let holes = report.audio.map_or(0, |audio| audio.gaps);
            // Sound that waited too long for a server that did not read is dropped.
            row.require(holes == 0 || !world.server().has_been_well(), || {
                format!("{holes} holes in the audio timeline")
            });
        }
        row
    }

    pub fn require(&mut self, holds: bool, miss: impl FnOnce() -> String) {
        if !holds {
            self.misses.push(miss());
        }
    }

    /// Every frame and every sound, no freeze.
    pub fn require_everything(&mut self) {
        let Figures { frames, exact, freezes, sound_gaps, sounds, sounds_exact, .. } = self.figures;
        self.require(exact == frames, || format!("{} of {frames} frames missing", frames - exact));
        self.require(freezes.count == 0, || format!("{} freezes, longest {:?}", freezes.count, freezes.longest));
        self.require(sound_gaps == 0, || format!("{} of {sounds} sounds missing", sounds - sounds_exact));
    }

    /// What the mixer, which buffers little, may see frozen.
    pub fn require_mixer_frozen(&mut self, at_most_percent: u32) {
        let (frozen, played) = (self.figures.mixer_freezes.total, self.figures.played);
        self.require(frozen * 100 <= played * at_most_percent, || {
            format!("the mixer is frozen for {frozen:?} of {played:?}")
        });
    }

    pub fn require_delay(&mut self, p95: Duration) {
        let Figures { delay_p95, sound_delay_p95, .. } = self.figures;
        self.require(delay_p95 <= p95, || format!("added delay p95 {delay_p95:?}"));
        self.require(sound_delay_p95 <= p95, || format!("added delay of sound p95 {sound_delay_p95:?}"));
    }

    pub fn require_sync(&mut self, ms: f64) {
        let skew = self.figures.skew_max_ms;
        self.require(skew <= ms, || format!("picture and sound {skew:.0} ms apart"));
    }

    /// One RTMP connection from the beginning to the end.
    pub fn require_one_connection(&mut self, world: &World) {
        let connections = world.server().connections();
        let lost: Vec<String> = world
            .rtmp_events()
            .iter()
            .filter_map(|(at, event)| match event {
                rtmp::Event::Lost { reason, .. } => {
                    Some(format!("{reason} at {:.1} s", (*at - world.start).as_secs_f64()))
                }
                _ => None,
            })
            .collect();
        let connected = connections == 1 && world.server().is_connected();
        self.require(connected, || format!("{connections} RTMP connections: {}", lost.join("; ")));
    }

    pub fn heading() -> String {
        format!(
            "{:<26}{:>7}{:>7}{:>14}{:>7}{:>12}{:>8}{:>6}  {}",
            "scenario", "sent", "exact", "frozen ms", "audio", "delay ms", "A/V ms", "PLI", "verdict"
        ) + "\n"
            + &format!(
                "{:<26}{:>7}{:>7}{:>14}{:>7}{:>12}{:>8}{:>6}",
                "", "", "", "400/50", "gaps", "p50/p95", "skew", ""
            )
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = &self.figures;
        let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
        let frozen = format!("{:.0}/{:.0}", ms(figures.freezes.total), ms(figures.mixer_freezes.total));
        let delay = format!("{:.0}/{:.0}", ms(figures.delay_p50), ms(figures.delay_p95));
        let measured = |text: String| if self.frames_only { "-".to_owned() } else { text };
        write!(
            f,
            "{:<26}{:>7}{:>7}{:>14}{:>7}{:>12}{:>8}{:>6}  {}",
            self.name,
            figures.frames,
            figures.exact,
            measured(frozen),
            measured(figures.sound_gaps.to_string()),
            measured(delay),
            measured(format!("{:.0}", figures.skew_max_ms)),
            measured(self.requests.to_string()),
            if self.misses.is_empty() { "ok".to_owned() } else { format!("MISSED: {}", self.misses.join(", ")) }
        )?;
        if !self.notes.is_empty() {
            write!(f, " ({})", self.notes.join(", "))?;
        }
        Ok(())
    }
}
