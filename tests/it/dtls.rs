//! The DTLS handshake against another implementation.
#![allow(clippy::unwrap_used)]

mod link;

use link::{Link, clean};

#[test]
fn both_ends_export_the_same_keys() {
    let run = Link::new().run(clean);
    eprintln!(
        "{:?} {} {:?}",
        run.took,
        run.datagrams,
        run.link.client.dropped()
    );
    run.assert_same_keys();
}
