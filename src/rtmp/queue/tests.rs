//! The drop policy, on messages that are one repeated letter: `K` keyframe, `i` inter frame, `a` audio, `V` and `M`
//! configurations, `c` control.

#![allow(clippy::unwrap_used)]

use super::*;

const LEN: usize = 10;

fn class(letter: char) -> Class {
    match letter {
        'K' => Class::Keyframe,
        'i' => Class::InterFrame,
        'a' => Class::Audio,
        'V' => Class::VideoConfig,
        'M' => Class::Config,
        _ => Class::Control,
    }
}

/// Messages 100 ms apart, from 0.
fn queue(letters: &str) -> Queue {
    let mut queue = Queue::default();
    let mut ms = 0;
    for letter in letters.chars() {
        let byte = u8::try_from(letter).unwrap();
        queue.push(class(letter), ms, |out| out.extend([byte; LEN]));
        ms += 100;
    }
    queue
}

/// What is queued, one letter for each whole message.
fn letters(queue: &Queue) -> String {
    queue.unwritten().chunks(LEN).map(|chunk| char::from(chunk[0])).collect()
}

fn trim(queue: &mut Queue, media_ms: u32) -> Trimmed {
    queue.trim(Bounds { picture_ms: media_ms, media_ms, bytes: usize::MAX })
}

#[test]
fn within_its_bounds_nothing_is_dropped() {
    let mut queue = queue("MVKiaia");
    assert_eq!(trim(&mut queue, 400), Trimmed::default());
    assert_eq!(letters(&queue), "MVKiaia");
    assert_eq!(queue.media_ms(), 400);
}

#[test]
fn whole_gops_go_oldest_first_and_audio_stays() {
    let mut queue = queue("KiaiKiaiKiai");
    let trimmed = trim(&mut queue, 900);
    assert_eq!(letters(&queue), "aKiaiKiai", "the first GOP's pictures");
    assert_eq!(trimmed, Trimmed { pictures: 3, audio_frames: 0, gops: 1, needs_keyframe: false });
    let trimmed = trim(&mut queue, 500);
    assert_eq!(letters(&queue), "aKiai", "then the second, and the audio that is too old by itself");
    assert_eq!((trimmed.gops, trimmed.audio_frames), (1, 1));
}

#[test]
fn the_rest_of_a_gop_whose_start_was_written_goes_as_a_whole() {
    let mut queue = queue("KiiiiiKi");
    queue.handle_written(2 * LEN);
    assert_eq!(trim(&mut queue, 300), Trimmed { pictures: 4, gops: 1, ..Trimmed::default() });
    assert_eq!(letters(&queue), "Ki");
}

#[test]
fn a_single_gop_is_cut_and_a_keyframe_asked_for() {
    let mut queue = queue("Kiiiia");
    let trimmed = trim(&mut queue, 300);
    assert_eq!(letters(&queue), "a");
    assert_eq!((trimmed.pictures, trimmed.needs_keyframe), (5, true));
}

#[test]
fn a_partly_written_message_is_completed() {
    let mut queue = queue("KiiiKi");
    queue.handle_written(LEN + 3);
    trim(&mut queue, 100);
    let expected = [&[b'i'; 7][..], &[b'K'; LEN], &[b'i'; LEN]].concat();
    assert_eq!(queue.unwritten(), expected);
    assert_eq!(queue.handle_written(7), Some(100), "the rest of the message from 100 ms");
}

#[test]
fn the_parameter_sets_in_front_of_the_next_keyframe_stay_and_older_ones_go() {
    let mut queue = queue("KiVKiVKicM");
    trim(&mut queue, 100);
    assert_eq!(letters(&queue), "VKicM");
}

#[test]
fn audio_alone_is_bounded_too() {
    let mut queue = queue("caaaaaac");
    assert_eq!(trim(&mut queue, 200), Trimmed { audio_frames: 3, ..Trimmed::default() });
    assert_eq!(letters(&queue), "caaac");
}

#[test]
fn pictures_make_room_before_the_sound_behind_them_is_too_old() {
    let mut queue = queue("aKiaiKiai");
    let trimmed = queue.trim(Bounds { picture_ms: 600, media_ms: 800, bytes: usize::MAX });
    assert_eq!(letters(&queue), "aaKiai");
    assert_eq!(trimmed, Trimmed { pictures: 3, audio_frames: 0, gops: 1, needs_keyframe: false });
}

#[test]
fn bytes_are_bounded_as_well_as_time() {
    let mut queue = queue("KiiKiiKii");
    let trimmed = queue.trim(Bounds { picture_ms: u32::MAX, media_ms: u32::MAX, bytes: 4 * LEN });
    assert_eq!(letters(&queue), "Kii");
    assert_eq!((trimmed.gops, trimmed.needs_keyframe), (2, false));
}

#[test]
fn what_cannot_be_dropped_ends_the_trimming() {
    let mut queue = queue("cccMV");
    assert_eq!(queue.trim(Bounds { picture_ms: 0, media_ms: 0, bytes: 0 }), Trimmed::default());
    assert_eq!(letters(&queue), "cccMV");
}

#[test]
fn written_bytes_are_given_back_in_any_portion() {
    for portion in 1..(3 * LEN) {
        let mut queue = queue("cKia");
        assert_eq!(queue.control_len(), LEN);
        let mut written = Vec::new();
        let mut media = Vec::new();
        while !queue.is_empty() {
            let now: Vec<u8> = queue.unwritten().iter().take(portion).copied().collect();
            media.extend(queue.handle_written(now.len()));
            written.extend(now);
        }
        assert_eq!(written, [[b'c'; LEN], [b'K'; LEN], [b'i'; LEN], [b'a'; LEN]].concat());
        assert_eq!(media.last(), Some(&300), "portions of {portion}");
        assert_eq!((queue.control_len(), queue.media_ms(), queue.bytes.len()), (0, 0, 0));
    }
}

#[test]
fn memory_is_given_back_after_a_backlog() {
    let mut queue = Queue::default();
    for ms in 0..200 {
        queue.push(Class::InterFrame, ms, |out| out.resize(out.len() + 20_000, 1));
        queue.handle_written(5_000);
        assert!(queue.bytes.len() <= 2 * queue.len() + 2 * COMPACT_AT, "written bytes are moved out of the way");
    }
    queue.handle_written(queue.len());
    assert!(queue.bytes.capacity() <= IDLE_CAPACITY);
}
