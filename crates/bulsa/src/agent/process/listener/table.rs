//! The kernel's table of listening TCP sockets.
//!
//! Owns: reading `/proc/PID/net/tcp` and `tcp6`, which show the network namespace of that process. Never: knows whose
//! a socket is; that is [`super::owners`].
//!
//! The kernel prints listening sockets before all others, so reading stops at the first line of another kind: it is
//! not slower with more connections. Each read may take milliseconds all the same; see [`super::diag`].

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listener {
    /// Where it listens; a v4 address mapped into v6 is a v4 address here.
    pub(super) address: SocketAddr,
    /// The user who opened it.
    pub(super) uid: u32,
    /// Names the socket in `/proc/PID/fd`.
    pub(super) inode: u64,
}

/// At most this many bytes of one table are read (a listener takes 150 to 180).
const TABLE_BYTES_MAX: u64 = 4 << 20;

/// Every TCP listener in the network namespace of process `pid`.
pub(super) fn listeners(pid: u32) -> io::Result<Vec<Listener>> {
    let mut found = read(File::open(format!("/proc/{pid}/net/tcp"))?)?;
    match File::open(format!("/proc/{pid}/net/tcp6")) {
        Ok(file) => found.extend(read(file)?),
        // A kernel without IPv6 has no such file.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    Ok(found)
}

fn read(table: impl Read) -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    for line in BufReader::new(table.take(TABLE_BYTES_MAX)).lines().skip(1) {
        match parse_line(&line?) {
            Some(listener) => found.push(listener),
            None => break,
        }
    }
    Ok(found)
}

/// One line, if it is a listener's: `sl local remote state queues timer retransmits uid timeout inode …`.
fn parse_line(line: &str) -> Option<Listener> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let address = parse_address(fields.nth(1)?)?;
    (fields.nth(1)? == LISTEN).then_some(())?;
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    Some(Listener { address, uid, inode })
}

/// `0100007F:1F90` or its longer IPv6 form: words of four bytes in the machine's byte order, then the port.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |i: usize| {
        let digits = address.get(i * 8..i * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0_u8; 16];
            for (i, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(i)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use proptest::prelude::*;

    use super::*;

    #[cfg(target_endian = "little")]
    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0000000000000000
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 777 1 0000000000000000 100
   2: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 999 1 0000000000000000
";

    #[cfg(target_endian = "little")]
    #[test]
    fn listeners_are_read_up_to_the_first_connection() {
        let listener = |address: &str, uid, inode| Listener { address: address.parse().unwrap(), uid, inode };
        let expected = [listener("127.0.0.1:8080", 1000, 12345), listener("0.0.0.0:22", 0, 777)];
        assert_eq!(read(TCP.as_bytes()).unwrap(), expected);
        assert_eq!(read(&b""[..]).unwrap(), []);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn addresses_of_both_families_are_read() {
        let read = |text| parse_address(text).map(|address| address.to_string());
        assert_eq!(read("00000000000000000000000001000000:0BB8").as_deref(), Some("[::1]:3000"));
        assert_eq!(read("0000000000000000FFFF00000100007F:0BB8").as_deref(), Some("127.0.0.1:3000"));
        assert_eq!(read("00000000000000000000000000000000:0BB8").as_deref(), Some("[::]:3000"));
        for bad in ["", ":", "0100007F", "0100007F:", "0100007F:12345", "01:1", "0100007\u{e9}:1"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_kernel_lists_a_listener_that_this_process_opens_before_its_connections() {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = std::net::TcpStream::connect(v4.local_addr().unwrap()).unwrap();
        let later = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = listeners(std::process::id()).unwrap();
        for socket in [&v4, &later] {
            assert!(found.iter().any(|l| l.address == socket.local_addr().unwrap()), "{found:?}");
        }
        drop(connection);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(.*\n){0,5}", line in "[ 0-9A-F:]{0,200}") {
            drop(read(text.as_bytes()));
            let _ = parse_line(&line);
        }
    }
}
