//! The scenarios: what happens to a guest, and what must come of it.
//!
//! Each has a full length for `make netsim` and a short one for `make test`. "RTT 50 ms" is 25 ms each way; loss and
//! jitter hit both directions, so that feedback is lost as well.

mod changes;
mod goodbye;
mod loss;
mod rtmp_side;
mod stalls;
mod timing;

use std::time::Duration;

use loadgen::clip::Clip;
use loadgen::guest::GuestConfig;
use loadgen::netem::Impairments;

use crate::row::Row;
use crate::world::{Setup, World};

/// How much media a scenario plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Full,
    Short,
}

impl Length {
    fn of(self, full: Duration, short: Duration) -> Duration {
        match self {
            Length::Full => full,
            Length::Short => short,
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub play: fn(name: &'static str, length: Length, seed: u64) -> Row,
}

/// In the order of the table.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "no loss", play: loss::none },
    Scenario { name: "1 % random", play: loss::one_percent },
    Scenario { name: "3 % random", play: loss::three_percent },
    Scenario { name: "5 % random", play: loss::five_percent },
    Scenario { name: "10 % in bursts of 4", play: loss::bursts },
    Scenario { name: "20 % random", play: loss::twenty_percent },
    Scenario { name: "calm after bursts", play: loss::calm },
    Scenario { name: "duplicates, reordering", play: loss::disorder },
    Scenario { name: "congestion to 1 Mbit/s", play: loss::congestion },
    Scenario { name: "blackout of 10 s", play: changes::blackout },
    Scenario { name: "guest reloads the page", play: changes::reload },
    Scenario { name: "direct, SFU, direct", play: changes::path },
    Scenario { name: "leaves for good", play: goodbye::leaves },
    Scenario { name: "next guest without camera", play: goodbye::sound_alone },
    Scenario { name: "hold runs out", play: goodbye::hold },
    Scenario { name: "SSRC changes", play: changes::ssrc },
    Scenario { name: "resolution changes", play: changes::resolution },
    Scenario { name: "camera, microphone off", play: changes::mute },
    Scenario { name: "mute stops the clock", play: stalls::mute },
    Scenario { name: "capture stalls 5 x 200 ms", play: stalls::capture },
    Scenario { name: "wall clock set by 3 s", play: stalls::wall_clock },
    Scenario { name: "microphone begins 8 s in", play: stalls::late_microphone },
    Scenario { name: "clocks 100 ppm apart", play: timing::drift },
    Scenario { name: "wraps of RTP and 24 bits", play: timing::wraps },
    Scenario { name: "49 days: 32 bits of ms", play: timing::days },
    Scenario { name: "RTMP server away 3 s", play: rtmp_side::away },
    Scenario { name: "RTMP server slow", play: rtmp_side::slow },
    Scenario { name: "RTMP server stopped", play: rtmp_side::stopped },
];

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// One way of a round trip of 50 ms.
const DELAY: Duration = Duration::from_millis(25);
const JITTER: Duration = Duration::from_millis(20);
/// What the mixer's picture and sound may be apart.
const SYNC_MS: f64 = 40.0;
/// What a scenario may add to the delay (95 % of the frames).
const ADDED_DELAY: Duration = Duration::from_millis(400);

/// A browser as the page sets it up: it repeats lost audio when asked.
fn browser() -> GuestConfig {
    GuestConfig { audio_nack: true, audio_red: true, ..GuestConfig::default() }
}

fn quiet() -> Impairments {
    Impairments { delay: DELAY, ..Impairments::default() }
}

fn setup(network: Impairments, seed: u64) -> Setup {
    Setup { clip: Clip::chromium_720p(), guest: browser(), up: network.clone(), down: network, seed }
}

/// A guest whose media flow, 12 s of it where a scenario needs a past: sender reports have come, RTMP is live.
fn live(network: Impairments, seed: u64) -> World {
    let mut world = World::new(setup(network, seed));
    world.run_for(12 * SECOND);
    world
}

/// Everything still on its way may arrive.
fn finish(world: &mut World) {
    world.end_count();
    world.run_for(SECOND);
}
