//! What we take of an offer: its m-lines, and what holds for the transport they share.

use guest_relay_muxer::TrackKind;
use sdp::{MediaDescription, SessionDescription};

use super::error::{DescriptionError, OfferError};
use super::text::{kind_of, parse_lines};
use super::track::{Attributes, Take, Track};
use super::transport::{BundleTransport, RemoteAddresses, Setup, is_ice_lite, setup};

/// An offer that can be answered.
#[derive(Debug, Clone)]
pub struct Offer {
    /// How to reach the peer, and who it is.
    pub transport: BundleTransport,
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
    pub fn parse(text: &str, addresses: RemoteAddresses) -> Result<Self, OfferError> {
        let description = parse_lines(text).map_err(DescriptionError::Text)?;
        let mut sections: Vec<Section> = description.media_descriptions.iter().map(Section::new).collect();
        take_first_usable(&description, &mut sections)?;
        let taken = sections.iter().position(|section| section.track.is_some()).ok_or(OfferError::NothingSent)?;
        let transport = BundleTransport::parse(&description, taken, addresses)?;
        match setup(&description, taken) {
            Some(Setup::ActPass | Setup::Passive) => {}
            Some(Setup::Active) | None => return Err(OfferError::SetupActive),
            Some(Setup::Unknown) => return Err(OfferError::Setup),
        }
        Ok(Self { transport, sections })
    }

    /// The tracks that are taken: one of each kind at most, one at least.
    pub fn tracks(&self) -> impl Iterator<Item = &Track> {
        self.sections.iter().filter_map(|section| section.track.as_ref())
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
fn take_first_usable(description: &SessionDescription, sections: &mut [Section]) -> Result<(), OfferError> {
    let mut taken: Vec<TrackKind> = Vec::with_capacity(2);
    // A browser is told the one payload type that we want. An SFU forwards what another sent under the payload type
    // that fits it: every one that we can take is kept.
    let take = if is_ice_lite(description) { Take::All } else { Take::Best };
    let mut without_codec: Vec<TrackKind> = Vec::new();
    for (media, section) in description.media_descriptions.iter().zip(&mut *sections) {
        let Some(kind) = kind_of(&section.media) else {
            continue;
        };
        if taken.contains(&kind) || !sends(media, description) {
            continue;
        }
        match Track::pick(kind, media, take) {
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
    let mut payload_types: Vec<u8> = Vec::with_capacity(4);
    for (media, section) in description.media_descriptions.iter().zip(&*sections) {
        let Some(track) = &section.track else {
            continue;
        };
        if !Attributes(&media.attributes).has("rtcp-mux") {
            return Err(DescriptionError::NoRtcpMux.into());
        }
        if taken.len() > 1 && !section.bundled {
            return Err(DescriptionError::NoBundle.into());
        }
        for payload_type in track.payload_types() {
            if payload_types.contains(&payload_type) {
                return Err(DescriptionError::DuplicatePayloadType.into());
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
pub(super) fn is_bundled(description: &SessionDescription, mid: Option<&str>) -> bool {
    Attributes(&description.attributes)
        .values("group")
        .filter_map(|group| group.strip_prefix("BUNDLE "))
        .any(|mids| mids.split(' ').any(|member| Some(member) == mid))
}

/// Whether the m-line offers media from the peer to us over DTLS-SRTP.
pub(super) fn sends(media: &MediaDescription, description: &SessionDescription) -> bool {
    let attributes = Attributes(&media.attributes);
    let name = &media.media_name;
    let has_port = name.port.value != 0 || attributes.has("bundle-only");
    let is_srtp = matches!(
        name.protos.iter().map(String::as_str).collect::<Vec<_>>()[..],
        ["UDP", "TLS", "RTP", "SAVPF" | "SAVP"]
    );
    const DIRECTIONS: [&str; 4] = ["sendrecv", "sendonly", "recvonly", "inactive"];
    let direction_of = |attributes: &Attributes<'_>| DIRECTIONS.into_iter().find(|direction| attributes.has(direction));
    let direction = direction_of(&attributes).or_else(|| direction_of(&Attributes(&description.attributes)));
    has_port && is_srtp && matches!(direction, None | Some("sendrecv" | "sendonly"))
}
