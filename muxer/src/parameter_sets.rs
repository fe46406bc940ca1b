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
            Some(stored) => {
                *stored = StoredSps {
                    sps,
                    nal: nal.to_vec(),
                }
            }
            None => {
                if self.sps.len() >= MAX_SPS {
                    self.sps.remove(0);
                }
                self.sps.push(StoredSps {
                    sps,
                    nal: nal.to_vec(),
                });
            }
        }
        Ok(())
    }

    /// Takes in a PPS.
    pub(crate) fn store_pps(&mut self, nal: &[u8]) -> Result<(), ParameterSetError> {
        let (id, sps_id) = sps::pps_ids(nal)?;
        match self.pps.iter_mut().find(|stored| stored.id == id) {
            Some(stored) if stored.nal == nal => {}
            Some(stored) => {
                *stored = StoredPps {
                    id,
                    sps_id,
                    nal: nal.to_vec(),
                    fresh: true,
                }
            }
            None => {
                if self.pps.len() >= MAX_PPS {
                    self.pps.remove(0);
                }
                self.pps.push(StoredPps {
                    id,
                    sps_id,
                    nal: nal.to_vec(),
                    fresh: true,
                });
            }
        }
        Ok(())
    }

    /// The PPS that have to stand in front of the first slice of a picture: those that changed without an IDR
    /// picture to carry a sequence header, and all of them when an IDR picture's stream uses several, since
    /// servers that read only the first PPS of avcC would lose the others.
    pub(crate) fn in_band(&self, idr: bool) -> impl Iterator<Item = &[u8]> {
        let several = self.pps.len() > 1;
        self.pps
            .iter()
            .filter(move |pps| if idr { several } else { pps.fresh })
            .map(|pps| pps.nal.as_slice())
    }

    /// A picture has begun: whatever was new is known now.
    pub(crate) fn settle(&mut self) {
        self.pps.iter_mut().for_each(|pps| pps.fresh = false);
    }

    /// Writes avcC for a picture whose slices name `pps_id` (any PPS if `None`); `None` when its sets are not known.
    pub(crate) fn write_avcc(&self, pps_id: Option<u8>, out: &mut Vec<u8>) -> Option<Sps> {
        let pps = self
            .pps
            .iter()
            .find(|pps| pps_id.is_none_or(|id| pps.id == id))?;
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

fn write_set(writer: &mut Writer<'_>, nal: &[u8]) {
    writer.u16(u16::try_from(nal.len()).expect("at most MAX_PARAMETER_SET_BYTES"));
    writer.bytes(nal);
}
