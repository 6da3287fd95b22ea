//! The listening TCP sockets of this network namespace, asked of the kernel directly.
//!
//! Owns: one `SOCK_DIAG` dump over netlink, restricted to listeners. Never: the only way. The kernel walks its whole
//! table of connections to print `/proc/net/tcp`, milliseconds on a machine with much memory; this takes some tens of
//! microseconds. But it needs a kernel module that may be missing, and shows our own namespace only, so
//! [`super::table`] stays beside it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
    sockopt::{Timeout, set_socket_timeout},
};

use super::table::Listener;

/// The kernel answers while it is asked; this only guards against never coming back.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// The kernel fills at most this much for one read, in bytes.
const ANSWER_BYTES: usize = 32 << 10;

/// At most this many reads for one family: far more sockets than can listen.
const READS_MAX: usize = 1024;

const HEADER_BYTES: usize = 16;
const REQUEST_BYTES: usize = HEADER_BYTES + 56;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST_AND_DUMP: u16 = 0x301;
const LISTEN: u32 = 10;

/// Every TCP listener of this thread's network namespace.
pub(super) fn listeners() -> io::Result<Vec<Listener>> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_WAIT))?;
    let mut found = Vec::new();
    let mut buffer = vec![0_u8; ANSWER_BYTES];
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        send(&socket, &request(family), SendFlags::empty())?;
        let mut reads = 0;
        loop {
            let (length, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
            match parse(&buffer[..length], &mut found)? {
                Answer::Complete => break,
                Answer::More if reads < READS_MAX => reads += 1,
                Answer::More => return Err(io::Error::other("the kernel's answer doesn't end")),
            }
        }
    }
    Ok(found)
}

/// A message header, then which sockets: family, TCP, no extras, the states, and any addresses.
fn request(family: AddressFamily) -> [u8; REQUEST_BYTES] {
    const TCP: u8 = 6;
    let mut bytes = [0; REQUEST_BYTES];
    let length = u32::try_from(REQUEST_BYTES).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&REQUEST_AND_DUMP.to_ne_bytes());
    bytes[HEADER_BYTES] = u8::try_from(family.as_raw()).unwrap_or_default();
    bytes[HEADER_BYTES + 1] = TCP;
    bytes[HEADER_BYTES + 4..HEADER_BYTES + 8].copy_from_slice(&(1_u32 << LISTEN).to_ne_bytes());
    bytes
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    More,
    Complete,
}

/// Reads one datagram of messages into `found`.
fn parse(mut bytes: &[u8], found: &mut Vec<Listener>) -> io::Result<Answer> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer isn't understood");
    while !bytes.is_empty() {
        let length = usize::try_from(u32_at(bytes, 0).ok_or_else(malformed)?).map_err(|_| malformed())?;
        let kind = u16_at(bytes, 4).ok_or_else(malformed)?;
        let body = bytes.get(HEADER_BYTES..length).ok_or_else(malformed)?;
        match kind {
            DONE => return Ok(Answer::Complete),
            ERROR => {
                let code = u32_at(body, 0).ok_or_else(malformed)?.cast_signed();
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            SOCK_DIAG_BY_FAMILY => found.push(parse_socket(body).ok_or_else(malformed)?),
            _ => {}
        }
        // Messages begin at multiples of four bytes.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Answer::More)
}

/// `family state timer retransmits`, ports, two addresses of 16 bytes, interface, cookie, expiry, queues, user, inode.
fn parse_socket(body: &[u8]) -> Option<Listener> {
    let port = u16::from_be_bytes(array_at(body, 4)?);
    let family = u16::from(*body.first()?);
    let ip = if family == AddressFamily::INET.as_raw() {
        IpAddr::V4(Ipv4Addr::from(array_at::<4>(body, 8)?))
    } else {
        IpAddr::V6(Ipv6Addr::from(array_at::<16>(body, 8)?)).to_canonical()
    };
    let (uid, inode) = (u32_at(body, 64)?, u64::from(u32_at(body, 68)?));
    Some(Listener { address: SocketAddr::new(ip, port), uid, inode })
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_agrees_with_the_printed_table() {
        let sockets =
            ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"].map(|address| TcpListener::bind(address).ok());
        let found = match listeners() {
            Ok(found) => found,
            Err(error) => return println!("skipped: this kernel can't be asked: {error}"),
        };
        let printed = super::super::table::listeners(std::process::id()).unwrap();
        for socket in sockets.into_iter().flatten() {
            let address = socket.local_addr().unwrap();
            let one = |list: &[Listener]| list.iter().find(|listener| listener.address == address).copied();
            assert!(one(&found).is_some(), "{address} isn't in {found:?}");
            assert_eq!(one(&found), one(&printed));
        }
    }

    #[test]
    fn an_error_of_the_kernel_is_passed_on() {
        let mut bytes = [0_u8; 36];
        bytes[..4].copy_from_slice(&36_u32.to_ne_bytes());
        bytes[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        bytes[16..20].copy_from_slice(&(-2_i32).to_ne_bytes());
        assert_eq!(parse(&bytes, &mut Vec::new()).unwrap_err().raw_os_error(), Some(2));
    }

    #[test]
    fn a_message_that_is_cut_is_an_error() {
        for bytes in [&[0_u8; 3][..], &[0; 16], &[255; 40]] {
            assert!(parse(bytes, &mut Vec::new()).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), length in 0..120_u32, kind in 0..22_u16) {
            let mut framed = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &bytes].concat();
            drop(parse(&framed, &mut Vec::new()));
            framed.drain(..6);
            drop(parse(&framed, &mut Vec::new()));
        }
    }
}
