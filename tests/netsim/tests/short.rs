//! Each row of the table, short: what `make netsim` shows over ten minutes of media has to hold over seconds.

use netsim::scenario::{Length, SCENARIOS};

const SEED: u64 = 1;

fn holds(name: &str) {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name).expect("a row of the table");
    let row = (scenario.play)(scenario.name, Length::Short, SEED);
    assert!(row.misses.is_empty(), "seed {SEED}: {row}");
}

#[test]
fn without_loss_every_frame_arrives_at_once() {
    holds("no loss");
}

#[test]
fn one_percent_of_random_loss_is_repaired_bit_by_bit() {
    holds("1 % random");
}

#[test]
fn three_percent_of_random_loss_are_repaired_bit_by_bit() {
    holds("3 % random");
}

#[test]
fn five_percent_of_random_loss_are_repaired_bit_by_bit() {
    holds("5 % random");
}

#[test]
fn ten_percent_in_bursts_cost_next_to_nothing() {
    holds("10 % in bursts of 4");
}

#[test]
fn the_delay_of_a_bad_minute_is_gone_soon_after_it() {
    holds("calm after bursts");
}

#[test]
fn twenty_percent_never_show_a_corrupt_picture() {
    holds("20 % random");
}

#[test]
fn duplicates_and_reordering_change_nothing() {
    holds("duplicates, reordering");
}

#[test]
fn a_congested_link_lowers_the_rate_and_freezes_nothing() {
    holds("congestion to 1 Mbit/s");
}

#[test]
fn a_blackout_is_bridged_and_the_picture_is_back_soon() {
    holds("blackout of 10 s");
}

#[test]
fn a_reload_of_the_page_is_bridged() {
    holds("guest reloads the page");
}

#[test]
fn a_change_of_path_keeps_the_publication() {
    holds("direct, SFU, direct");
}

#[test]
fn another_ssrc_goes_on_where_the_last_one_ended() {
    holds("SSRC changes");
}

#[test]
fn another_resolution_needs_no_new_connection() {
    holds("resolution changes");
}

#[test]
fn camera_and_microphone_go_off_and_on() {
    holds("camera, microphone off");
}

#[test]
fn a_mute_that_stops_the_clock_is_a_hole_and_no_more() {
    holds("mute stops the clock");
}

#[test]
fn captures_that_stall_leave_no_sound_behind() {
    holds("capture stalls 5 x 200 ms");
}

#[test]
fn a_wall_clock_that_is_set_moves_no_picture() {
    holds("wall clock set by 3 s");
}

#[test]
fn a_microphone_that_begins_late_has_taught_no_late_clock() {
    holds("microphone begins 8 s in");
}

#[test]
fn clocks_that_drift_apart_are_kept_together() {
    holds("clocks 100 ppm apart");
}

#[test]
fn rtp_clocks_and_sequence_numbers_wrap_unnoticed() {
    holds("wraps of RTP and 24 bits");
}

#[test]
fn before_32_bits_of_milliseconds_end_a_new_connection_begins() {
    holds("49 days: 32 bits of ms");
}

#[test]
fn a_server_that_was_away_gets_the_guest_back() {
    holds("RTMP server away 3 s");
}

#[test]
fn a_slow_server_loses_whole_groups_of_pictures_and_no_sound() {
    holds("RTMP server slow");
}

#[test]
fn a_stopped_server_gets_the_guest_back() {
    holds("RTMP server stopped");
}
