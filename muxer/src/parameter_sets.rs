//! The SPS and PPS in force, and the avcC made of them (ISO/IEC 14496-15, 5.3.3.1.2).
//!
//! Input: parameter sets from the SDP and from the stream, in any order. Output: for the PPS a slice names, the SPS
//! behind it and all PPS that go with that SPS. Bounds: [`MAX_SPS`] and [`MAX_PPS`] sets, the oldest goes first.

use crate::bytes::Writer;
use crate::sps::{self, ParameterSetError, Sps};

/// Sequence parameter sets kept; senders use one.
const MAX_SPS: usize = 4;
/// Picture parameter sets kept; senders use one or two.
const MAX_PPS: usize = 16;

#[derive(Debug)]
struct StoredSps {
    sps: Sps,
    nal: Vec<u8>,
}

#[derive(Debug)]
struct StoredPps {
    id: u8,
    sps_id: u8,
    nal: Vec<u8>,
    /// New or changed since the last picture.
    fresh: bool,
}

/// All parameter sets of one stream.
#[derive(Debug, Default)]
pub(crate) struct ParameterSets {
    sps: Vec<StoredSps>,
    pps: Vec<StoredPps>,
}

impl ParameterSets {
    /// Takes in an SPS. One that cannot be read makes all others doubtful: they are forgotten.
    pub(crate) fn store_sps(&mut self, nal: &[u8]) -> Result<(), ParameterSetError> {
        let sps = match Sps::parse(nal) {
            Ok(sps) => sps,
            Err(error) => {
                self.sps.clear();
                return Err(error);
            }
        };
        match self.sps.iter_mut().find(|stored| stored.sps.id == sps.id) {
            Some(stored) if stored.nal == nal => {}
            Some(stored) => *stored = StoredSps { sps, nal: nal.to_vec() },
            None => {
                if self.sps.len() >= MAX_SPS {
                    self.sps.remove(0);
                }
                self.sps.push(StoredSps { sps, nal: nal.to_vec() });
            }
        }
        Ok(())
    }

    /// Takes in a PPS.
    pub(crate) fn store_pps(&mut self, nal: &[u8]) -> Result<(), ParameterSetError> {
        let (id, sps_id) = sps::pps_ids(nal)?;
        match self.pps.iter_mut().find(|stored| stored.id == id) {
            Some(stored) if stored.nal == nal => {}
            Some(stored) => *stored = StoredPps { id, sps_id, nal: nal.to_vec(), fresh: true },
            None => {
                if self.pps.len() >= MAX_PPS {
                    self.pps.remove(0);
                }
                self.pps.push(StoredPps { id, sps_id, nal: nal.to_vec(), fresh: true });
            }
        }
        Ok(())
    }

    /// The PPS that have to stand in front of the first slice of a picture: those that changed without an IDR
    /// picture to carry a sequence header, and all of them when an IDR picture's stream uses several, since
    /// servers that read only the first PPS of avcC would lose the others.
    pub(crate) fn in_band(&self, idr: bool) -> impl Iterator<Item = &[u8]> {
        let several = self.pps.len() > 1;
        self.pps.iter().filter(move |pps| if idr { several } else { pps.fresh }).map(|pps| pps.nal.as_slice())
    }

    /// A picture has begun: whatever was new is known now.
    pub(crate) fn settle(&mut self) {
        self.pps.iter_mut().for_each(|pps| pps.fresh = false);
    }

    /// The SPS behind this PPS.
    pub(crate) fn sps(&self, pps_id: u8) -> Option<&Sps> {
        let pps = self.pps.iter().find(|pps| pps.id == pps_id)?;
        self.sps.iter().map(|stored| &stored.sps).find(|sps| sps.id == pps.sps_id)
    }

    /// Writes avcC for a picture whose slices name `pps_id` (any PPS if `None`); `None` when its sets are not known.
    pub(crate) fn write_avcc(&self, pps_id: Option<u8>, out: &mut Vec<u8>) -> Option<Sps> {
        let pps = self.pps.iter().find(|pps| pps_id.is_none_or(|id| pps.id == id))?;
        let active = self.sps.iter().find(|stored| stored.sps.id == pps.sps_id)?;
        let sps = active.sps;
        let mut writer = Writer::new(out);
        writer.u8(1);
        writer.bytes(&[sps.profile_idc, sps.constraint_flags, sps.level_idc]);
        writer.u8(0xfc | 3); // NAL units behind 4-byte lengths
        writer.u8(0xe0 | 1);
        write_set(&mut writer, &active.nal);
        let belonging = || self.pps.iter().filter(|pps| pps.sps_id == sps.id);
        writer.u8(u8::try_from(belonging().count()).expect("at most MAX_PPS"));
        for id in 0..=u8::MAX {
            for pps in belonging().filter(|pps| pps.id == id) {
                write_set(&mut writer, &pps.nal);
            }
        }
        if sps.has_chroma_format() {
            writer.u8(0xfc | sps.chroma_format_idc);
            writer.u8(0xf8 | (sps.bit_depth_luma - 8));
            writer.u8(0xf8 | (sps.bit_depth_chroma - 8));
            writer.u8(0); // SPS extensions
        }
        Some(sps)
    }
}

fn write_set(writer: &mut Writer<&mut Vec<u8>>, nal: &[u8]) {
    writer.u16(u16::try_from(nal.len()).expect("at most MAX_PARAMETER_SET_BYTES"));
    writer.bytes(nal);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fixtures::{PPS, PPS_HIGH, SPS, SPS_HIGH};

    /// As [`PPS`] with pic_parameter_set_id 1.
    const PPS_1: &[u8] = &[0x68, 0x5b, 0x83, 0xcb, 0x20];

    fn sets(nals: &[&[u8]]) -> ParameterSets {
        let mut sets = ParameterSets::default();
        for nal in nals {
            if nal.first() == Some(&0x67) { sets.store_sps(nal) } else { sets.store_pps(nal) }.unwrap();
        }
        sets
    }

    fn avcc(sets: &ParameterSets, pps_id: Option<u8>) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        sets.write_avcc(pps_id, &mut out).map(|_| out)
    }

    #[test]
    fn avcc_of_baseline_is_what_ffmpeg_writes() {
        // extradata of an FLV that FFmpeg 8 wrote from the same stream.
        let expected = [&[1, 0x42, 0xc0, 0x0d, 0xff, 0xe1, 0, 24], SPS, &[1, 0, 5], PPS].concat();
        assert_eq!(avcc(&sets(&[SPS, PPS]), Some(0)), Some(expected));
    }

    #[test]
    fn avcc_of_high_ends_in_chroma_format_and_bit_depths() {
        let expected =
            [&[1, 0x64, 0, 0x28, 0xff, 0xe1, 0, 27], SPS_HIGH, &[1, 0, 6], PPS_HIGH, &[0xfd, 0xf8, 0xf8, 0]].concat();
        assert_eq!(avcc(&sets(&[SPS_HIGH, PPS_HIGH]), None), Some(expected));
    }

    #[test]
    fn avcc_lists_every_pps_of_the_sps_by_id() {
        let expected = [&[1, 0x42, 0xc0, 0x0d, 0xff, 0xe1, 0, 24], SPS, &[2, 0, 5], PPS, &[0, 5], PPS_1].concat();
        assert_eq!(avcc(&sets(&[PPS_1, SPS, PPS]), Some(1)), Some(expected));
    }

    #[test]
    fn without_the_sps_or_the_pps_there_is_no_avcc() {
        assert_eq!(avcc(&sets(&[SPS]), Some(0)), None);
        assert_eq!(avcc(&sets(&[PPS]), Some(0)), None);
        assert_eq!(avcc(&sets(&[SPS, PPS]), Some(1)), None);
    }

    #[test]
    fn a_set_with_the_same_id_takes_the_place_of_the_earlier_one() {
        let mut sets = sets(&[SPS, PPS]);
        sets.store_sps(SPS_HIGH).unwrap();
        sets.store_pps(PPS_HIGH).unwrap();
        assert_eq!(sets.write_avcc(Some(0), &mut Vec::new()).map(|sps| sps.width), Some(1920));
        assert_eq!((sets.sps.len(), sets.pps.len()), (1, 1));
    }

    #[test]
    fn an_sps_that_cannot_be_read_takes_the_others_with_it() {
        let mut sets = sets(&[SPS, PPS]);
        assert!(sets.store_sps(&[0x67, 0x42]).is_err());
        assert_eq!(avcc(&sets, Some(0)), None);
    }

    #[test]
    fn the_number_of_sets_is_bounded() {
        let mut sets = sets(&[SPS]);
        for id in 0..=255u16 {
            // ue(v) of the id, ue(v) 0 of the SPS, and a bit that ends it.
            let code = u32::from(id) + 1;
            let zeros = code.ilog2();
            let bits = (u64::from(code) << 2 | 0b11) << (64 - (2 * zeros + 3));
            sets.store_pps(&[&[0x68][..], &bits.to_be_bytes()].concat()).unwrap();
        }
        assert_eq!(sets.pps.len(), MAX_PPS);
        assert!(avcc(&sets, Some(255)).is_some());
        assert!(avcc(&sets, Some(0)).is_none());
    }
}
