//! What we take of an offer: its m-lines, and what holds for the transport they share.

use std::net::{IpAddr, SocketAddr};

use guest_relay_muxer::TrackKind;
use sdp::{MediaDescription, SessionDescription};

use super::super::dtls::PeerFingerprints;
use super::super::ice::Credentials;
use super::super::ice::checks::MAX_REMOTE_CANDIDATES;
use super::track::{Attributes, Track};
use super::{OfferError, kind_of, parse_lines};

/// An offer that can be answered.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The peer does no checks: we control.
    pub ice_lite: bool,
    /// The peer's ICE credentials.
    pub credentials: Credentials,
    /// UDP candidates with an address, at most [`MAX_REMOTE_CANDIDATES`]; only a controlling agent uses them.
    pub candidates: Vec<SocketAddr>,
    /// What the peer's certificate is held to.
    pub fingerprints: PeerFingerprints,
    /// Every m-line in order: an answer has as many.
    pub(super) sections: Vec<Section>,
}

/// One m-line of the offer.
#[derive(Debug, Clone)]
pub(super) struct Section {
    pub(super) media: String,
    pub(super) proto: String,
    /// The first format, repeated where the m-line is refused: the grammar wants one.
    pub(super) format: String,
    pub(super) mid: Option<String>,
    pub(super) bundled: bool,
    pub(super) track: Option<Track>,
}

impl Offer {
    /// Reads an offer and decides what to take of it.
    pub fn parse(text: &str) -> Result<Self, OfferError> {
        let description = parse_lines(text)?;
        let session = Attributes(&description.attributes);
        let mut sections: Vec<Section> = description
            .media_descriptions
            .iter()
            .map(Section::new)
            .collect();
        take_first_usable(&description, &mut sections)?;

        // In a BUNDLE group these belong to the tagged m-line and hold for all (RFC 8843 section 7.1.3).
        let taken = sections.iter().position(|section| section.track.is_some());
        let media = taken
            .and_then(|index| description.media_descriptions.get(index))
            .map_or(Attributes(&[]), |media| Attributes(&media.attributes));
        let transport = |key| media.value(key).or_else(|| session.value(key));
        let credentials = transport("ice-ufrag")
            .zip(transport("ice-pwd"))
            .and_then(|(ufrag, pwd)| Credentials::parse(ufrag, pwd))
            .ok_or(OfferError::IceCredentials)?;
        match transport("setup") {
            Some("actpass" | "passive") => {}
            Some("active") | None => return Err(OfferError::SetupActive),
            Some(_) => return Err(OfferError::Setup),
        }
        let fingerprints = match media.value("fingerprint") {
            Some(_) => PeerFingerprints::parse(media.values("fingerprint")),
            None => PeerFingerprints::parse(session.values("fingerprint")),
        }
        .map_err(OfferError::Fingerprint)?;
        let ice_lite = session.has("ice-lite");
        let candidates = candidates(&description);
        if ice_lite && candidates.is_empty() {
            return Err(OfferError::NoCandidates);
        }
        Ok(Self {
            ice_lite,
            credentials,
            candidates,
            fingerprints,
            sections,
        })
    }

    /// The tracks that are taken: one of each kind at most, one at least.
    pub fn tracks(&self) -> impl Iterator<Item = &Track> {
        self.sections
            .iter()
            .filter_map(|section| section.track.as_ref())
    }
}

impl Section {
    fn new(media: &MediaDescription) -> Self {
        let name = &media.media_name;
        let mid = Attributes(&media.attributes).value("mid");
        Self {
            media: name.media.clone(),
            proto: name.protos.join("/"),
            format: name.formats.first().map_or("0", String::as_str).to_owned(),
            mid: mid.map(str::to_owned),
            bundled: false,
            track: None,
        }
    }
}

/// Gives the first usable m-line of each kind its [`Track`].
fn take_first_usable(
    description: &SessionDescription,
    sections: &mut [Section],
) -> Result<(), OfferError> {
    let mut taken: Vec<TrackKind> = Vec::with_capacity(2);
    let mut without_codec: Vec<TrackKind> = Vec::new();
    for (media, section) in description.media_descriptions.iter().zip(&mut *sections) {
        let Some(kind) = kind_of(&section.media) else {
            continue;
        };
        if taken.contains(&kind) || !sends(media, description) {
            continue;
        }
        match Track::pick(kind, media) {
            Some(track) => {
                taken.push(kind);
                section.bundled = is_bundled(description, section.mid.as_deref());
                section.track = Some(track);
            }
            None => without_codec.push(kind),
        }
    }
    if let Some(kind) = without_codec.iter().find(|kind| !taken.contains(kind)) {
        return Err(match kind {
            TrackKind::Video => OfferError::NoH264,
            TrackKind::Audio => OfferError::NoOpus,
        });
    }
    if taken.is_empty() {
        return Err(OfferError::NothingSent);
    }
    let mut payload_types = Vec::with_capacity(4);
    for (media, section) in description.media_descriptions.iter().zip(&*sections) {
        let Some(track) = &section.track else {
            continue;
        };
        if !Attributes(&media.attributes).has("rtcp-mux") {
            return Err(OfferError::NoRtcpMux);
        }
        if taken.len() > 1 && !section.bundled {
            return Err(OfferError::NoBundle);
        }
        for payload_type in [Some(track.payload_type), track.rtx_payload_type]
            .into_iter()
            .flatten()
        {
            if payload_types.contains(&payload_type) {
                return Err(OfferError::DuplicatePayloadType);
            }
            payload_types.push(payload_type);
        }
        let same_mid = |other: &&Section| other.mid.is_some() && other.mid == track.mid;
        if sections.iter().filter(same_mid).count() > 1 {
            return Err(OfferError::DuplicateMid);
        }
    }
    Ok(())
}

/// Whether `mid` is in a `a=group:BUNDLE` (RFC 8843).
fn is_bundled(description: &SessionDescription, mid: Option<&str>) -> bool {
    Attributes(&description.attributes)
        .values("group")
        .filter_map(|group| group.strip_prefix("BUNDLE "))
        .any(|mids| mids.split(' ').any(|member| Some(member) == mid))
}

/// Whether the m-line offers media from the peer to us over DTLS-SRTP.
fn sends(media: &MediaDescription, description: &SessionDescription) -> bool {
    let attributes = Attributes(&media.attributes);
    let name = &media.media_name;
    let has_port = name.port.value != 0 || attributes.has("bundle-only");
    let is_srtp = matches!(
        name.protos.iter().map(String::as_str).collect::<Vec<_>>()[..],
        ["UDP", "TLS", "RTP", "SAVPF" | "SAVP"]
    );
    const DIRECTIONS: [&str; 4] = ["sendrecv", "sendonly", "recvonly", "inactive"];
    let direction_of = |attributes: &Attributes<'_>| {
        DIRECTIONS
            .into_iter()
            .find(|direction| attributes.has(direction))
    };
    let direction =
        direction_of(&attributes).or_else(|| direction_of(&Attributes(&description.attributes)));
    has_port && is_srtp && matches!(direction, None | Some("sendrecv" | "sendonly"))
}

/// `a=candidate:<foundation> <component> <transport> <priority> <address> <port> typ ...` (RFC 8839 section 5.1) of
/// component 1 over UDP with a literal address; names (mDNS) are passed over.
fn candidates(description: &SessionDescription) -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = Vec::new();
    let of_media = description
        .media_descriptions
        .iter()
        .flat_map(|media| media.attributes.iter());
    for attribute in description.attributes.iter().chain(of_media) {
        let Some(value) = attribute
            .value
            .as_deref()
            .filter(|_| attribute.key == "candidate")
        else {
            continue;
        };
        if let Some(address) = candidate_address(value)
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
        .then_some(SocketAddr::new(ip, port))
}
