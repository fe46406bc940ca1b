//! What holds for the transport that the m-lines of a BUNDLE group share: ICE credentials and candidates (RFC 8839),
//! `a=fingerprint` (RFC 8122), `a=setup` (RFC 8842).
//!
//! They belong to the tagged m-line of the group (RFC 8843 §7.1.3) or to the session; senders that repeat them
//! repeat the same. They are looked for in the m-line that is taken first, at session level, then in every other
//! m-line: a tagged one that is inactive by now may still be the only one to have them.
//!
//! A description tells us where to send our checks, so a candidate must be an address that a peer can have: literal,
//! of one host, with a port; of this machine only where [`RemoteAddresses::Any`] says so. At most
//! [`MAX_REMOTE_CANDIDATES`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use sdp::SessionDescription;

use super::super::dtls::{FingerprintError, PeerFingerprints};
use super::super::ice::Credentials;
use super::super::ice::checks::MAX_REMOTE_CANDIDATES;
use super::error::DescriptionError;
use super::track::Attributes;

/// Which candidates of an `ice-lite` peer are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RemoteAddresses {
    /// Those of other machines.
    #[default]
    Remote,
    /// Those of this one, too: an SFU that is simulated beside us.
    Any,
}

/// How the peer reaches us and we it, and who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleTransport {
    /// The peer does no checks: we control.
    pub ice_lite: bool,
    /// The peer's ICE credentials.
    pub credentials: Credentials,
    /// UDP candidates with an address, at most [`MAX_REMOTE_CANDIDATES`]; only a controlling agent uses them.
    pub candidates: Vec<SocketAddr>,
    /// What the peer's certificate is held to.
    pub fingerprints: PeerFingerprints,
}

/// `a=setup`: which side opens the DTLS association.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setup {
    ActPass,
    Active,
    Passive,
    /// Another word.
    Unknown,
}

impl BundleTransport {
    /// Reads the transport of the m-line with index `taken`.
    pub(super) fn parse(
        description: &SessionDescription,
        taken: usize,
        addresses: RemoteAddresses,
    ) -> Result<Self, DescriptionError> {
        let ice_lite = is_ice_lite(description);
        let candidates = candidates(description, addresses);
        let transport = Self {
            ice_lite,
            credentials: value(description, taken, "ice-ufrag")
                .zip(value(description, taken, "ice-pwd"))
                .and_then(|(ufrag, pwd)| Credentials::parse(ufrag, pwd))
                .ok_or(DescriptionError::IceCredentials)?,
            fingerprints: levels(description, taken)
                .find(|level| level.has("fingerprint"))
                .map_or(Err(FingerprintError::Missing), |level| PeerFingerprints::parse(level.values("fingerprint")))
                .map_err(DescriptionError::Fingerprint)?,
            candidates,
        };
        if ice_lite && transport.candidates.is_empty() {
            return Err(DescriptionError::NoCandidates);
        }
        Ok(transport)
    }
}

/// `a=setup` of the m-line with index `taken`, if there is one.
pub(super) fn setup(description: &SessionDescription, taken: usize) -> Option<Setup> {
    Some(match value(description, taken, "setup")? {
        "actpass" => Setup::ActPass,
        "active" => Setup::Active,
        "passive" => Setup::Passive,
        _ => Setup::Unknown,
    })
}

/// `a=ice-lite`, which stands at session level (RFC 8839 §5.3).
pub(super) fn is_ice_lite(description: &SessionDescription) -> bool {
    Attributes(&description.attributes).has("ice-lite")
}

fn value<'a>(description: &'a SessionDescription, taken: usize, key: &'a str) -> Option<&'a str> {
    levels(description, taken).find_map(|level| level.value(key))
}

fn levels(description: &SessionDescription, taken: usize) -> impl Iterator<Item = Attributes<'_>> {
    let sections = &description.media_descriptions;
    let session = Attributes(&description.attributes);

    sections
        .get(taken)
        .map(|media| Attributes(&media.attributes))
        .into_iter()
        .chain([session])
        .chain(sections.iter().map(|media| Attributes(&media.attributes)))
}

/// `a=candidate:<foundation> <component> <transport> <priority> <address> <port> typ ...` (RFC 8839 §5.1) of
/// component 1 over UDP with a literal address; names (mDNS) are passed over.
fn candidates(description: &SessionDescription, addresses: RemoteAddresses) -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = Vec::new();
    let of_media = description.media_descriptions.iter().flat_map(|media| media.attributes.iter());
    for attribute in description.attributes.iter().chain(of_media) {
        let Some(value) = attribute.value.as_deref().filter(|_| attribute.key == "candidate") else {
            continue;
        };
        if let Some(address) = candidate_address(value)
            && may_be_checked(address.ip(), addresses)
            && !found.contains(&address)
            && found.len() < MAX_REMOTE_CANDIDATES
        {
            found.push(address);
        }
    }
    found
}

fn candidate_address(value: &str) -> Option<SocketAddr> {
    let mut words = value.split(' ').filter(|word| !word.is_empty());
    let _foundation = words.next()?;
    let component = words.next()?;
    let transport = words.next()?;
    let _priority = words.next()?;
    let ip: IpAddr = words.next()?.parse().ok()?;
    let port: u16 = words.next()?.parse().ok()?;
    (component == "1" && transport.eq_ignore_ascii_case("udp") && port != 0)
        .then_some(SocketAddr::new(ip.to_canonical(), port))
}

fn may_be_checked(ip: IpAddr, addresses: RemoteAddresses) -> bool {
    let is_one_host = !ip.is_unspecified() && !ip.is_multicast() && ip != Ipv4Addr::BROADCAST;
    is_one_host && (!ip.is_loopback() || addresses == RemoteAddresses::Any)
}
