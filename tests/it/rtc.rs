//! Whole peers: what `rtc/` makes of a WHIP client, and of an SFU, on another implementation.

mod session;

use std::time::Duration;

use guest_relay::rtc::peer::{Event, State};
use guest_relay_muxer::TrackKind;
use session::{Client, Session};

#[test]
fn a_whip_client_connects_and_both_tracks_arrive() {
    let mut session = Session::connected(Client::default());
    assert!(session.elapsed() < Duration::from_millis(500));
    for n in 0..50 {
        session.write_both(n, 1000);
    }
    session.run_for(Duration::from_millis(100));
    let audio: Vec<u16> = (1000..1050).collect();
    let video: Vec<u16> = (0..50).map(|n| 65_500_u16.wrapping_add(n)).collect();
    assert_eq!(session.sequences(TrackKind::Audio), audio);
    assert_eq!(session.sequences(TrackKind::Video), video);
    for delivered in &session.delivered {
        assert_eq!(
            delivered.payload[8..],
            vec![0x5a; delivered.payload.len() - 8]
        );
    }
    assert_eq!(*session.peer.state(), State::Connected);
    let connected = |event: &&Event| matches!(event, Event::Connected { .. });
    assert_eq!(session.events.iter().filter(connected).count(), 1);
}
