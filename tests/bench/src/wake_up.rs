//! What a machine charges for waking up at all: a thread that sleeps, wakes at an even rate, writes one small message to a
//! local TCP connection, and does nothing else. A live guest has as many occasions for that, so that CPU seconds of whole processes can be read against the state of the machine they were taken on.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// A guest's 50 Opus packets and 30 pictures.
const PER_SECOND: u32 = 80;
/// About an Opus packet. A picture's 10 kB do not take measurably longer.
const MESSAGE_BYTES: usize = 200;

/// CPU time of that thread, user and system, by the scheduler's books.
pub(crate) fn cost(seconds: u32) -> io::Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    stream.set_nodelay(true)?;
    let (mut reader, _) = listener.accept()?;
    // It reads until the connection ends, which is when this function does.
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while reader.read(&mut buffer).is_ok_and(|read| read > 0) {}
    });
    let begun_with = cpu_time()?;
    let mut due = Instant::now();
    for _ in 0..PER_SECOND * seconds {
        due += Duration::from_secs(1) / PER_SECOND;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        stream.write_all(&[0; MESSAGE_BYTES])?;
    }
    Ok(cpu_time()? - begun_with)
}

fn cpu_time() -> io::Result<Duration> {
    let books = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = books.split(' ').next().and_then(|field| field.parse().ok());
    nanos.map(Duration::from_nanos).ok_or_else(|| io::Error::other(format!("not a schedstat: {books:?}")))
}
