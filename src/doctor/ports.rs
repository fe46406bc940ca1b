//! Whether an address can be listened on, and if not, who has it: `/proc/net` (proc(5)) names the socket's inode, and
//! `/proc/{pid}/fd` whose it is. Other users' descriptors are visible to root only.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use super::findings::Program;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// The tables of its sockets, and the state of a listening one there: TCP_LISTEN; TCP_CLOSE for UDP without a peer.
    fn files(self) -> ([&'static str; 2], &'static str) {
        match self {
            Self::Tcp => (["/proc/net/tcp", "/proc/net/tcp6"], "0A"),
            Self::Udp => (["/proc/net/udp", "/proc/net/udp6"], "07"),
        }
    }
}

/// Listens for a moment.
pub(super) fn try_to_listen(protocol: Protocol, address: SocketAddr) -> io::Result<()> {
    match protocol {
        Protocol::Tcp => TcpListener::bind(address).map(drop),
        Protocol::Udp => UdpSocket::bind(address).map(drop),
    }
}

/// Whose socket listens on the port, as far as we may know.
pub(super) fn owner(protocol: Protocol, port: u16) -> Option<Program> {
    let (files, state) = protocol.files();
    let inodes: Vec<String> = files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|text| listening(&text, state, port))
        .collect();
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|process| process.file_name().to_str()?.parse().ok()).find_map(|pid: u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let mut targets = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        targets.any(|target| links.iter().any(|link| target.as_os_str() == link.as_str())).then(|| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            Program { pid, name: name.trim().to_owned() }
        })
    })
}

/// Inodes of sockets in this state on this port: `sl local_address rem_address st … inode`, addresses in hexadecimal.
fn listening(table: &str, state: &str, port: u16) -> Vec<String> {
    const STATE: usize = 3;
    const INODE: usize = 9;
    let inode = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
        let matches = u16::from_str_radix(local_port, 16) == Ok(port) && *fields.get(STATE)? == state;
        matches.then(|| fields.get(INODE).map(|inode| (*inode).to_owned())).flatten()
    };
    table.lines().skip(1).filter_map(inode).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Lines as proc(5) shows them.
    #[test]
    fn a_listening_socket_is_found_by_port_and_state() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 21234 1 0 100 0 0 10 0\n   \
             1: 0100007F:1F40 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 21999 1 0 20 4 30 10 -1\n";
        assert_eq!(listening(table, "0A", 8000), ["21234"]);
        assert_eq!(listening(table, "0A", 8001), Vec::<String>::new());
        assert_eq!(listening("cut", "0A", 8000), Vec::<String>::new());
    }

    #[test]
    fn our_own_sockets_are_ours() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        for (protocol, address) in
            [(Protocol::Tcp, tcp.local_addr().unwrap()), (Protocol::Udp, udp.local_addr().unwrap())]
        {
            assert_eq!(try_to_listen(protocol, address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            assert_eq!(owner(protocol, address.port()).unwrap().pid, std::process::id());
        }
    }
}
