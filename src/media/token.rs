//! Which descriptor the poller speaks of: a [`Token`] in, the 64 bits that epoll keeps for it out, and back.

use rustix::event::epoll::EventData;

/// A descriptor of the media thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// The UDP socket that all guests share.
    Udp,
    /// The wake-up descriptor.
    Wake,
    /// The RTMP connection of a slot.
    Rtmp(usize),
    /// The UDP socket of a session in a slot: at this place among the slot's sessions.
    Port(usize, Place),
}

/// A session's place among its slot's: 0 to 3.
pub(super) type Place = u8;

impl Token {
    pub(super) fn data(self) -> EventData {
        let of_slot = |index: usize, place: Place, kind| {
            u64::try_from(index).unwrap_or(u64::MAX >> 5) << 4 | u64::from(place & 3) << 2 | kind
        };
        EventData::new_u64(match self {
            Self::Udp => 0,
            Self::Wake => 1,
            Self::Rtmp(index) => of_slot(index, 0, 2),
            Self::Port(index, place) => of_slot(index, place, 3),
        })
    }

    pub(super) fn of(data: EventData) -> Self {
        let bits = data.u64();
        let index = usize::try_from(bits >> 4).unwrap_or(usize::MAX);
        match bits & 3 {
            0 => Self::Udp,
            1 => Self::Wake,
            2 => Self::Rtmp(index),
            _ => Self::Port(index, Place::try_from(bits >> 2 & 3).expect("two bits")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_descriptor_is_told_from_every_other() {
        let tokens = [
            Token::Udp,
            Token::Wake,
            Token::Rtmp(0),
            Token::Port(0, 0),
            Token::Port(0, 3),
            Token::Rtmp(127),
            Token::Port(127, 1),
        ];
        for token in tokens {
            assert_eq!(Token::of(token.data()), token);
        }
    }
}
