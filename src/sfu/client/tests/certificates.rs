//! The client against OpenSSL's `s_server` with certificates that are good for nothing: no handshake, and no token. Where
//! there is no `openssl` command these tests say so and pass.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use loadgen::patience::Lines;

use super::*;

/// What `openssl ca` needs to know to sign a certificate with times of our choice.
const AUTHORITY: &str = "[ca]\ndefault_ca = test\n[test]\ndatabase = index.txt\nnew_certs_dir = .\nserial = serial\n\
                         default_md = sha256\npolicy = any\nx509_extensions = v3\n[any]\ncommonName = supplied\n\
                         [v3]\nsubjectAltName = IP:127.0.0.1\n";
const YEAR_2020: &str = "-startdate 20200101000000Z -enddate 20210101000000Z";
const UNTIL_2099: &str = "-startdate 20200101000000Z -enddate 20990101000000Z";

/// `s_server` with a certificate that it signed itself, in a directory of its own.
struct Server {
    process: Child,
    printed: Lines,
    directory: PathBuf,
    port: u16,
}

fn openssl(directory: &Path, arguments: &str) -> Command {
    let mut command = Command::new("openssl");
    command.current_dir(directory).args(arguments.split_ascii_whitespace()).stderr(Stdio::null());
    command
}

impl Server {
    /// `None` without an `openssl` command.
    fn start(name: &str, times: &str, arguments: &str) -> Option<Self> {
        let directory = std::env::temp_dir().join(format!("guest-relay-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        for (file, text) in [("ca.cnf", AUTHORITY), ("index.txt", ""), ("serial", "01")] {
            std::fs::write(directory.join(file), text).unwrap();
        }
        for step in [
            "req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -keyout key.pem -out request.pem -subj /CN=127.0.0.1",
            &format!(
                "ca -batch -config ca.cnf -selfsign -keyfile key.pem -in request.pem -out certificate.pem -notext {times}"
            ),
        ] {
            match openssl(&directory, step).stdout(Stdio::null()).status() {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    eprintln!("skipped: no openssl command here");
                    return None;
                }
                status => assert!(status.unwrap().success(), "openssl {step}"),
            }
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let serve = format!("s_server -key key.pem -cert certificate.pem -accept 127.0.0.1:{port} {arguments}");
        let mut process = openssl(&directory, &serve).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let printed = Lines::of(process.stdout.take().unwrap());
        printed.next_with("ACCEPT");
        Some(Self { process, printed, directory, port })
    }

    /// What it saw of the connections so far, decrypted.
    fn seen(mut self) -> String {
        let _ = self.process.kill();
        std::mem::replace(&mut self.printed, Lines::of(std::io::empty())).rest()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn a_server_whose_certificate_is_good_for_nothing_is_unreachable_and_gets_no_token() {
    for (name, times, arguments, reason) in [
        ("self-signed", UNTIL_2099, "", "unknownissuer"),
        ("expired", YEAR_2020, "", "expired"),
        ("tls-1-1", UNTIL_2099, "-tls1_1 -cipher DEFAULT@SECLEVEL=0", ""),
    ] {
        let Some(server) = Server::start(name, times, arguments) else { return };
        let client =
            Client::new(&format!("https://127.0.0.1:{}/v1", server.port), "app", Secret::new(TOKEN.to_owned()));
        let error = client.new_session().unwrap_err();
        let Cause::Unreachable(told) = &error.cause else { panic!("{name}: {error:?}") };
        assert!(told.to_lowercase().contains(reason), "{name}: {told}");
        let seen = server.seen();
        assert!(!seen.contains(TOKEN) && !seen.contains("POST "), "{name}: {seen}");
    }
}

/// That what `s_server` prints would show the token.
#[test]
fn the_same_server_prints_what_a_client_tells_it_that_does_not_check() {
    let Some(server) = Server::start("careless", UNTIL_2099, "-naccept 1") else { return };
    let connect = format!("s_client -connect 127.0.0.1:{} -quiet -no_ign_eof", server.port);
    let mut client = openssl(&server.directory, &connect);
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    client
        .stdin
        .take()
        .unwrap()
        .write_all(format!("POST / HTTP/1.1\r\nAuthorization: {TOKEN}\r\n").as_bytes())
        .unwrap();
    server.printed.next_with(TOKEN);
    // That ends the server, too.
    let _ = client.kill();
    let _ = client.wait();
}
