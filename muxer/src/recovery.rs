//! The way back for streams without IDR pictures (periodic intra refresh): the pictures of one recovery, held back.
//!
//! After a loss the sender is asked for an IDR picture. Some encoders never make one: they refresh a part of each picture,
//! and say in a recovery point SEI message (H.264 §D.2.8) after how many the whole is exact, from whatever it started.
//! A decoder needs all pictures from that point on, and none before the last of them may be shown. So they are held, and
//! handed out together once the last is there and the gate has been shut for [`NO_IDR_AFTER`].
//!
//! ```text
//!          recovery point                    recovery_frame_cnt reference pictures on
//!  idle ──────────────────▶ holding ─────────────────────────────────────────────────▶ all held go out, the gate opens
//!   ▲ a loss, a damaged picture, a step in frame_num, an IDR picture, a bound │
//!   └─────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! frame_num says how far the recovery is, as the SEI message counts in it; pictures that nothing refers to do not move it.
//! Where pictures are reordered, as many more are held as may be shown out of turn. Pictures that are only
//! "approximately correct" (exact_match_flag 0) count as exact: the encoder shows its own viewers nothing better.
//! broken_link_flag speaks of pictures before the point, of which none goes out.
//!
//! Bounds: [`MAX_BYTES`], [`MAX_PICTURES`], [`MAX_SPAN`].

use crate::h264::Picture;
use crate::sps::Sps;
use crate::time::MediaTime;

/// A sender that makes IDR pictures has made one by now.
const NO_IDR_AFTER: MediaTime = MediaTime::from_millis(1000);
/// Bytes held.
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// Pictures held; at 60 a second as long as [`MAX_SPAN`].
pub(crate) const MAX_PICTURES: usize = 601;
/// From the first picture held to the last.
const MAX_SPAN: MediaTime = MediaTime::from_millis(10_000);

/// What becomes of a picture behind the shut gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has no part in a recovery.
    Drop,
    /// Keep its bytes with [`Recovery::hold`].
    Hold,
    /// All that is held goes out, then this one, which is exact.
    Open,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    began: MediaTime,
    frame_num: u32,
    /// Reference pictures, and then pictures, to go.
    references: u32,
    pictures: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Recovery {
    /// Arrival of the first picture that did not go out.
    shut_at: Option<MediaTime>,
    progress: Option<Progress>,
    held: Vec<Vec<u8>>,
    bytes: usize,
}

impl Recovery {
    /// Something is missing, or the gate is open: no recovery goes on. Returns how many pictures were held for nothing.
    pub(crate) fn discard(&mut self) -> u64 {
        let dropped = self.held.len();
        self.progress = None;
        self.held = Vec::new();
        self.bytes = 0;
        u64::try_from(dropped).unwrap_or(u64::MAX)
    }

    /// The gate is open.
    pub(crate) fn end(&mut self) -> u64 {
        self.shut_at = None;
        self.discard()
    }

    /// A recovery may begin with this picture.
    pub(crate) fn wants(&mut self, picture: &Picture) -> bool {
        self.shut_at.get_or_insert(picture.arrival);
        self.progress.is_none() && picture.recovery_frames.is_some()
    }

    /// It does. `depth`: how many pictures may be sent before one that is shown earlier.
    pub(crate) fn begin(&mut self, picture: &Picture, depth: usize) {
        let Some((frames, order)) = picture.recovery_frames.zip(picture.order) else { return };
        let fits = usize::try_from(frames).is_ok_and(|frames| frames + depth < MAX_PICTURES);
        self.progress = fits.then_some(Progress {
            began: picture.arrival,
            frame_num: order.frame_num,
            references: frames,
            pictures: depth,
        });
    }

    /// The next whole picture behind the shut gate, and the SPS in force.
    pub(crate) fn next(&mut self, picture: &Picture, sps: Option<&Sps>) -> Verdict {
        let Some(progress) = &mut self.progress else { return Verdict::Drop };
        let Some((order, sps)) = picture.order.zip(sps) else { return Verdict::Drop };
        let step = order.frame_num.wrapping_sub(progress.frame_num) & ((1 << sps.frame_num_bits) - 1);
        let late = picture.arrival - progress.began > MAX_SPAN;
        if (step > 1 && !sps.gaps_in_frame_num) || late || self.held.len() >= MAX_PICTURES - 1 {
            return Verdict::Drop;
        }
        progress.frame_num = order.frame_num;
        let was_exact = progress.references == 0 && !self.held.is_empty();
        progress.references = progress.references.saturating_sub(step);
        if progress.references > 0 || !(picture.reference || was_exact) {
            return Verdict::Hold;
        }
        if progress.pictures > 0 {
            progress.pictures -= 1;
            return Verdict::Hold;
        }
        let shut_for = self.shut_at.map_or(MediaTime::ZERO, |shut_at| picture.arrival - shut_at);
        if shut_for < NO_IDR_AFTER { Verdict::Hold } else { Verdict::Open }
    }

    /// Keeps a picture; `false` if it does not fit.
    pub(crate) fn hold(&mut self, mut body: Vec<u8>) -> bool {
        if self.bytes + body.len() > MAX_BYTES {
            return false;
        }
        body.shrink_to_fit();
        self.bytes += body.len();
        self.held.push(body);
        true
    }

    /// All that is held, in the order it came.
    pub(crate) fn take(&mut self) -> Vec<Vec<u8>> {
        self.bytes = 0;
        std::mem::take(&mut self.held)
    }
}
