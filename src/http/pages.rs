//! The pages, compiled into the binary: a fixed map from path to bytes, no file system behind it.
//!
//! Every file is sent with an entity tag and `no-cache`, so that a browser asks each time and an upgrade of the daemon
//! is an upgrade of the page.

use sha2::{Digest, Sha256};

use super::message::Response;

/// Scripts, styles and media only from ourselves; no frames around us, nothing else at all. `blob:` and `mediastream:`
/// are the camera preview.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     media-src 'self' blob: mediastream:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// What the page may ask the browser for.
const PERMISSIONS_POLICY: &str = "camera=(self), microphone=(self), screen-wake-lock=(self), geolocation=()";

struct File {
    /// Path in URLs.
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

macro_rules! file {
    ($name:literal, $content_type:literal) => {
        File {
            path: concat!("/static/", $name),
            content_type: $content_type,
            bytes: include_bytes!(concat!("../../static/", $name)),
        }
    };
}

const FILES: &[File] = &[
    file!("guest_join.html", "text/html; charset=utf-8"),
    file!("guest_join.css", "text/css; charset=utf-8"),
    file!("guest_join.js", "text/javascript; charset=utf-8"),
    file!("devices.js", "text/javascript; charset=utf-8"),
    file!("offer.js", "text/javascript; charset=utf-8"),
    file!("path.js", "text/javascript; charset=utf-8"),
    file!("publisher.js", "text/javascript; charset=utf-8"),
    file!("quality.js", "text/javascript; charset=utf-8"),
    file!("strings.js", "text/javascript; charset=utf-8"),
    file!("whip.js", "text/javascript; charset=utf-8"),
];

/// Other names of files.
const ALIASES: &[(&str, &str)] = &[("/", "/static/guest_join.html"), ("/guest_join", "/static/guest_join.html")];

/// The files with their entity tags.
#[derive(Debug)]
pub struct Pages {
    /// Quoted entity tags, in the order of `FILES`.
    etags: Vec<String>,
}

impl Default for Pages {
    fn default() -> Self {
        Self::new()
    }
}

impl Pages {
    /// Computes the entity tags.
    pub fn new() -> Self {
        let tag = |bytes: &[u8]| {
            let digest = Sha256::digest(bytes);
            let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            format!("\"{hex}\"")
        };
        Self { etags: FILES.iter().map(|file| tag(file.bytes)).collect() }
    }

    /// The file that a path names.
    pub fn name_of(path: &str) -> Option<&'static str> {
        let path = ALIASES.iter().find(|(alias, _)| *alias == path).map_or(path, |(_, target)| target);
        FILES.iter().find(|file| file.path == path).map(|file| file.path)
    }

    /// 200 with the file, or 304 when the client has it (RFC 9110 §13.1.2).
    pub(super) fn respond(&self, name: &str, if_none_match: Option<&str>) -> Response {
        let Some((file, etag)) = FILES.iter().zip(&self.etags).find(|(file, _)| file.path == name) else {
            return Response::text(404, "there is nothing at this address");
        };
        let known = if_none_match.is_some_and(|tags| {
            tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
        });
        let response = Response::new(if known { 304 } else { 200 })
            .with("etag", etag.clone())
            .with("cache-control", "no-cache")
            .with("content-security-policy", CONTENT_SECURITY_POLICY);
        if known {
            return response;
        }
        response
            .with("content-type", file.content_type)
            .with("x-content-type-options", "nosniff")
            .with("x-frame-options", "DENY")
            .with("referrer-policy", "no-referrer")
            .with("permissions-policy", PERMISSIONS_POLICY)
            .with_body(file.bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_the_page_is_served() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut folders = vec![root.join("static")];
        let mut there = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    there.push(format!("/{}", path.strip_prefix(root).unwrap().to_str().unwrap()));
                }
            }
        }
        there.sort_unstable();
        let mut served: Vec<_> = FILES.iter().map(|file| file.path).collect();
        served.sort_unstable();
        assert_eq!(served, there);
    }
}
