//! Tests of the bad network: what it does on average, and that it does the same again.

use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);

/// Sends `count` packets of 1000 bytes, one a millisecond; returns (number, arrival since the start).
fn run(impairments: &Impairments, seed: u64, count: u32) -> (Vec<(u32, Duration)>, NetemStats) {
    let epoch = Instant::now();
    let mut netem = Netem::new(impairments.clone(), seed, epoch);
    let mut arrived = Vec::new();
    for number in 0..count {
        let now = epoch + MILLISECOND * number;
        while let Some(due) = netem.poll_timeout().filter(|due| *due <= now) {
            arrived.extend(netem.poll(due).map(|number| (number, due - epoch)));
        }
        netem.push(number, 1000, now);
    }
    while let Some(due) = netem.poll_timeout() {
        arrived.extend(netem.poll(due).map(|number| (number, due - epoch)));
    }
    (arrived, netem.stats())
}

fn numbers(arrived: &[(u32, Duration)]) -> Vec<u32> {
    arrived.iter().map(|(number, _)| *number).collect()
}

#[test]
fn a_network_without_impairments_passes_everything_at_once_and_in_order() {
    let (arrived, _) = run(&Impairments::default(), 1, 1000);
    let expected: Vec<_> = (0..1000).map(|number| (number, MILLISECOND * number)).collect();
    assert_eq!(arrived, expected);
}

#[test]
fn the_same_seed_gives_the_same_network_and_another_seed_another() {
    let all = Impairments {
        loss: 0.05,
        burst: 3.0,
        delay: MILLISECOND * 25,
        jitter: MILLISECOND * 20,
        reorder: 0.02,
        duplicate: 0.01,
        rate_kbps: Some(9000),
        queue: MILLISECOND * 50,
        blackouts: vec![Blackout { at: MILLISECOND * 100, duration: MILLISECOND * 50 }],
    };
    assert_eq!(run(&all, 7, 5000), run(&all, 7, 5000));
    assert_ne!(numbers(&run(&all, 7, 5000).0), numbers(&run(&all, 8, 5000).0));
}

#[test]
fn independent_loss_has_its_share_and_mean_run_length() {
    check_loss(Impairments { loss: 0.05, ..Impairments::default() }, 0.05, 1.0 / 0.95);
}

#[test]
fn bursts_of_four_at_ten_percent_have_their_share_and_mean_run_length() {
    check_loss(Impairments { loss: 0.10, burst: 4.0, ..Impairments::default() }, 0.10, 4.0);
}

fn check_loss(impairments: Impairments, share: f64, run_length: f64) {
    const COUNT: u32 = 200_000;
    let (arrived, stats) = run(&impairments, 42, COUNT);
    let mut lost = 0;
    let mut runs = 0;
    let mut expected = 0;
    for number in numbers(&arrived).into_iter().chain([COUNT]) {
        lost += number - expected;
        runs += u32::from(number > expected);
        expected = number + 1;
    }
    assert_eq!(stats.lost, u64::from(lost));
    let (lost, runs) = (f64::from(lost), f64::from(runs));
    assert!((lost / f64::from(COUNT) - share).abs() < share * 0.05, "share {}", lost / f64::from(COUNT));
    assert!((lost / runs - run_length).abs() < run_length * 0.05, "mean run {}", lost / runs);
}

#[test]
fn jitter_spreads_the_delay_without_overtaking() {
    let impairments = Impairments { delay: MILLISECOND * 25, jitter: MILLISECOND * 20, ..Impairments::default() };
    let (arrived, _) = run(&impairments, 3, 10_000);
    assert!(numbers(&arrived).is_sorted());
    let delays: Vec<Duration> = arrived.iter().map(|(n, at)| *at - MILLISECOND * *n).collect();
    let (least, most) = (delays.iter().min().copied(), delays.iter().max().copied());
    assert!(least >= Some(MILLISECOND * 25) && least < Some(MILLISECOND * 30), "{least:?}");
    assert!(most > Some(MILLISECOND * 43) && most <= Some(MILLISECOND * 45), "{most:?}");
}

#[test]
fn reordered_packets_come_ten_milliseconds_late_and_the_rest_on_time() {
    let impairments = Impairments { reorder: 0.03, ..Impairments::default() };
    let (arrived, stats) = run(&impairments, 5, 100_000);
    let late = arrived.iter().filter(|(n, at)| *at == MILLISECOND * *n + REORDER_BY).count();
    let on_time = arrived.iter().filter(|(n, at)| *at == MILLISECOND * *n).count();
    assert_eq!((late as u64, late + on_time), (stats.reordered, 100_000));
    assert!((2_850..3_150).contains(&late), "{late}");
}

#[test]
fn duplicates_arrive_together() {
    let impairments = Impairments { duplicate: 0.02, ..Impairments::default() };
    let (arrived, stats) = run(&impairments, 6, 100_000);
    let twice = arrived.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert_eq!((twice as u64, arrived.len()), (stats.duplicated, 100_000 + twice));
    assert!((1_850..2_150).contains(&twice), "{twice}");
}

#[test]
fn a_rate_limit_lets_its_rate_through_and_queues_no_longer_than_it_may() {
    // 8 Mbit/s are offered, 2 Mbit/s pass.
    let impairments = Impairments { rate_kbps: Some(2000), queue: MILLISECOND * 100, ..Impairments::default() };
    let (arrived, stats) = run(&impairments, 1, 10_000);
    assert!((2_500..2_530).contains(&arrived.len()), "{}", arrived.len());
    assert_eq!(stats.queue_full, 10_000 - arrived.len() as u64);
    let longest = arrived.iter().map(|(n, at)| *at - MILLISECOND * *n).max();
    assert!(longest <= Some(MILLISECOND * 104), "{longest:?}");
}

#[test]
fn a_blackout_takes_what_is_sent_in_it_and_nothing_else() {
    let blackouts = vec![Blackout { at: MILLISECOND * 10, duration: MILLISECOND * 5 }];
    let (arrived, stats) = run(&Impairments { blackouts, ..Impairments::default() }, 1, 20);
    assert_eq!(numbers(&arrived), (0..10).chain(15..20).collect::<Vec<_>>());
    assert_eq!(stats.blacked_out, 5);
}
