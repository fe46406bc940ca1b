//! SPS, PPS and slice headers of H.264, as NAL units.
#![no_main]

use guest_relay_muxer::sps::{Sps, pps_ids, slice_ids};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|nal: &[u8]| {
    let _ = pps_ids(nal);
    let _ = slice_ids(nal);
    if let Ok(sps) = Sps::parse(nal) {
        assert!(sps.width > 0 && sps.height > 0);
    }
});
