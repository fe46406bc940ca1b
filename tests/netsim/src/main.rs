//! `netsim [--short] [--seed N] [NAME ...]`: the table; fails when a scenario misses one of its criteria.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use netsim::row::Row;
use netsim::scenario::{Length, SCENARIOS, Scenario};

const USAGE: &str = "usage: netsim [--short] [--seed N] [NAME ...]";

fn main() -> ExitCode {
    let (mut length, mut seed, mut names) = (Length::Full, 1, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--short" => length = Length::Short,
            "--seed" => match arguments.next().and_then(|seed| seed.parse().ok()) {
                Some(number) => seed = number,
                None => return usage(),
            },
            option if option.starts_with('-') => return usage(),
            name => names.push(name.to_owned()),
        }
    }
    let wanted = |scenario: &&Scenario| names.is_empty() || names.iter().any(|name| scenario.name.contains(name));
    let scenarios: Vec<Scenario> = SCENARIOS.iter().filter(wanted).copied().collect();
    if scenarios.is_empty() {
        eprintln!("no scenario of that name; there are:");
        SCENARIOS.iter().for_each(|scenario| eprintln!("  {}", scenario.name));
        return ExitCode::from(2);
    }
    println!("seed {seed}");
    println!("{}", Row::heading());
    let start = Instant::now();
    let missed = play(&scenarios, length, seed);
    println!("{} scenarios, {missed} missed their criteria, {:.0} s", scenarios.len(), start.elapsed().as_secs_f64());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

/// Plays all scenarios, several at a time, prints their rows in order, and says how many missed something.
fn play(scenarios: &[Scenario], length: Length, seed: u64) -> usize {
    let next = AtomicUsize::new(0);
    let rows: Mutex<Vec<Option<Row>>> = Mutex::new(scenarios.iter().map(|_| None).collect());
    let printed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((index, scenario)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    scenarios.get(index).map(|scenario| (index, scenario))
                } {
                    let row = (scenario.play)(scenario.name, length, seed);
                    let mut rows = rows.lock().expect("no thread panics while it holds the lock");
                    if let Some(place) = rows.get_mut(index) {
                        *place = Some(row);
                    }
                    let from = printed.load(Ordering::Relaxed);
                    let ready: Vec<&Row> = rows.iter().skip(from).map_while(Option::as_ref).collect();
                    ready.iter().for_each(|row| println!("{row}"));
                    printed.store(from + ready.len(), Ordering::Relaxed);
                }
            });
        }
    });
    let rows = rows.into_inner().expect("no thread panics while it holds the lock");
    rows.iter().flatten().filter(|row| !row.misses.is_empty()).count()
}
