//! SPS, PPS and slice headers of H.264, as NAL units.
#![no_main]

use guest_relay_muxer::sps::{SliceOrder, Sps, pps_ids, recovery_frame_count, slice_ids};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|nal: &[u8]| {
    let _ = pps_ids(nal);
    let _ = slice_ids(nal);
    let _ = recovery_frame_count(nal);
    if let Ok(sps) = Sps::parse(nal) {
        assert!(sps.width > 0 && sps.height > 0);
        let _ = SliceOrder::parse(nal, &sps);
    }
});
