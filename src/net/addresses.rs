//! The addresses of this machine, and which of them guests are told (RFC 8445 §5.1.1.1).

use std::io;
use std::net::{IpAddr, SocketAddr};

/// Addresses worth offering: link-local ones need a zone that the other side cannot know.
fn is_usable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

/// The interfaces' addresses that are worth offering. Fails where the system lists none, say for want of descriptors.
pub fn of_interfaces() -> io::Result<Vec<IpAddr>> {
    let interfaces = if_addrs::get_if_addrs()?;
    Ok(interfaces.iter().map(if_addrs::Interface::ip).filter(|ip| is_usable(*ip)).collect())
}

/// Where a guest is told to send media, each address once: those that are `configured`, since some senders try the first
/// alone (FFmpeg's WHIP muxer); then where our socket listens, or the interfaces' addresses if that is everywhere; and
/// `reached_at`, the address at which the guest asked us, where that is a loopback one.
pub fn candidates(listen: SocketAddr, reached_at: Option<IpAddr>, configured: &[SocketAddr]) -> Vec<SocketAddr> {
    let addresses: Vec<IpAddr> = if listen.ip().is_unspecified() {
        let loopback = reached_at.map(|ip| ip.to_canonical()).filter(IpAddr::is_loopback);
        let reachable = |ip: &IpAddr| listen.is_ipv6() || ip.is_ipv4();
        let interfaces = of_interfaces().unwrap_or_else(|error| {
            log::warn!("cannot list this machine's addresses: {error}");
            Vec::new()
        });
        interfaces.into_iter().filter(reachable).chain(loopback).collect()
    } else {
        vec![listen.ip()]
    };
    let own = addresses.into_iter().map(|address| SocketAddr::new(address, listen.port()));
    let mut candidates = Vec::new();
    for candidate in configured.iter().copied().chain(own) {
        if !candidates.contains(&candidate) {
            candidates.push(candidate);
        }
    }
    candidates
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_link_local_addresses_are_of_no_use_to_anybody_else() {
        for (ip, usable) in [
            ("192.168.1.58", true),
            ("2001:db8::58", true),
            ("127.0.0.1", false),
            ("169.254.1.1", false),
            ("0.0.0.0", false),
            ("::1", false),
            ("fe80::1", false),
            ("::", false),
        ] {
            assert_eq!(is_usable(ip.parse().unwrap()), usable, "{ip}");
        }
    }

    #[test]
    fn a_socket_with_an_address_is_told_after_the_configured_ones_each_once() {
        let (listen, other) = ("192.0.2.7:8189".parse().unwrap(), "203.0.113.7:9000".parse().unwrap());
        let loopback = Some([127, 0, 0, 1].into());
        assert_eq!(candidates(listen, loopback, &[other, other]), [other, listen]);
        assert_eq!(candidates(listen, loopback, &[other, listen, other]), [other, listen]);
        assert_eq!(candidates("0.0.0.0:8189".parse().unwrap(), loopback, &[other]).first(), Some(&other));
    }

    #[test]
    fn a_guest_on_this_machine_is_told_its_loopback_address() {
        let (listen, loopback): (SocketAddr, IpAddr) = ("0.0.0.0:8189".parse().unwrap(), [127, 0, 0, 1].into());
        let own = SocketAddr::new(loopback, 8189);
        assert!(candidates(listen, Some("::ffff:127.0.0.1".parse().unwrap()), &[]).contains(&own));
        assert!(!candidates(listen, Some([192, 0, 2, 1].into()), &[]).contains(&own));
        assert!(!candidates(listen, None, &[]).contains(&own));
    }
}
