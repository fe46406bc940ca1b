//! The handshake against OpenSSL's `s_server`, over loopback, in real time. Where there is no `openssl` command these
//! tests say so and pass.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use guest_relay::rtc::dtls::{Certificate, DtlsError, Handshake, PeerFingerprints};
use guest_relay::rtc::srtp::{Keys, SrtpProfile};
use loadgen::patience::{Deadline, Lines};

/// OpenSSL's server in a process of its own, with a certificate of its own.
struct Server {
    process: Child,
    lines: Lines,
    port: u16,
    fingerprint: PeerFingerprints,
}

impl Server {
    /// `key` and `extra` are arguments of `openssl req` and `openssl s_server`. `None` without an `openssl` command.
    fn start(name: &str, key: &[&str], extra: &[&str]) -> Option<Self> {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let made = Command::new("openssl")
            .current_dir(&directory)
            .args("req -x509 -nodes -keyout key.pem -out certificate.pem -days 2 -subj /CN=test".split(' '))
            .arg("-newkey")
            .args(key)
            .stderr(Stdio::null())
            .status();
        match made {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                eprintln!("skipped: no openssl command here");
                return None;
            }
            status => assert!(status.unwrap().success(), "openssl req"),
        }
        let printed = Command::new("openssl")
            .current_dir(&directory)
            .args("x509 -in certificate.pem -noout -fingerprint -sha256".split(' '))
            .output()
            .unwrap();
        let printed = String::from_utf8(printed.stdout).unwrap();
        let (_, digest) = printed.split_once('=').unwrap();

        let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut process = Command::new("openssl")
            .current_dir(&directory)
            .args("s_server -dtls1_2 -timeout -key key.pem -cert certificate.pem".split(' '))
            .args(["-accept", &format!("127.0.0.1:{port}")])
            .args(extra)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = Lines::of(process.stdout.take().unwrap());
        lines.next_with("ACCEPT");
        Some(Self {
            process,
            lines,
            port,
            fingerprint: PeerFingerprints::parse([format!("sha-256 {digest}").as_str()]).unwrap(),
        })
    }

    fn handshake(&self, profiles: &[SrtpProfile]) -> Result<Keys, DtlsError> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        let mut handshake =
            Handshake::new(&Certificate::generate(), self.fingerprint.clone(), profiles, Instant::now());
        let mut buffer = [0; 2048];
        let deadline = Deadline::new("a result of the handshake");
        loop {
            deadline.check(|| "none");
            while let Some(datagram) = handshake.poll_transmit() {
                socket.send(&datagram).unwrap();
            }
            if let Some(result) = handshake.poll_result() {
                return result;
            }
            let due = handshake.poll_timeout().unwrap();
            let wait = due.saturating_duration_since(Instant::now());
            socket.set_read_timeout(Some(wait.max(Duration::from_millis(1)))).unwrap();
            if let Ok(len) = socket.recv(&mut buffer) {
                handshake.handle_datagram(&buffer[..len], Instant::now());
            }
            handshake.handle_timeout(Instant::now());
        }
    }

    /// What the server exported, from its output.
    fn material(&self) -> String {
        let line = self.lines.next_with("Keying material: ");
        let (_, material) = line.split_once("Keying material: ").unwrap();
        material.trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const P_256: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];

fn hex(keys: &Keys) -> String {
    let material = [keys.local.key(), keys.remote.key(), keys.local.salt(), keys.remote.salt()];
    let bytes = material.concat();
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

fn assert_same_keys(name: &str, key: &[&str], extra: &str, profile: SrtpProfile) {
    let use_srtp = match profile {
        SrtpProfile::AeadAes128Gcm => "SRTP_AEAD_AES_128_GCM",
        SrtpProfile::Aes128CmSha1_80 => "SRTP_AES128_CM_SHA1_80",
    };
    let len = profile.export_len().to_string();
    let mut arguments = vec!["-use_srtp", use_srtp];
    arguments.extend(["-keymatexport", "EXTRACTOR-dtls_srtp"]);
    arguments.extend(["-keymatexportlen", &len]);
    arguments.extend(extra.split_whitespace());
    let Some(server) = Server::start(name, key, &arguments) else {
        return;
    };
    let keys = server.handshake(&SrtpProfile::OFFERED).unwrap();
    assert_eq!(keys.profile, profile);
    assert_eq!(hex(&keys), server.material());
}

#[test]
fn openssl_with_the_cm_profile_exports_the_same_keys() {
    assert_same_keys("openssl-cm", P_256, "", SrtpProfile::Aes128CmSha1_80);
}

#[test]
fn openssl_with_the_gcm_profile_exports_the_same_keys() {
    assert_same_keys("openssl-gcm", P_256, "", SrtpProfile::AeadAes128Gcm);
}

#[test]
fn openssl_with_a_cookie_and_a_client_certificate_exports_the_same_keys() {
    let extra = "-listen -Verify 1";
    assert_same_keys("openssl-cookie", P_256, extra, SrtpProfile::Aes128CmSha1_80);
}

#[test]
fn openssl_with_an_rsa_certificate_in_small_fragments_exports_the_same_keys() {
    let extra = "-mtu 300";
    assert_same_keys("openssl-rsa", &["rsa:2048"], extra, SrtpProfile::AeadAes128Gcm);
}

#[test]
fn openssl_without_use_srtp_is_refused() {
    let Some(server) = Server::start("openssl-no-srtp", P_256, &[]) else {
        return;
    };
    let result = server.handshake(&SrtpProfile::OFFERED);
    assert_eq!(result.err(), Some(DtlsError::NoSrtpProfile));
}

#[test]
fn openssl_with_another_certificate_than_promised_gives_no_keys() {
    let extra = ["-use_srtp", "SRTP_AES128_CM_SHA1_80"];
    let Some(mut server) = Server::start("openssl-mismatch", P_256, &extra) else {
        return;
    };
    server.fingerprint = Certificate::generate().fingerprint().into();
    let result = server.handshake(&SrtpProfile::OFFERED);
    assert!(matches!(result, Err(DtlsError::FingerprintMismatch { .. })));
}
