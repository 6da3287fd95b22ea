use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;

fn ends(source: &str, destination: &str) -> Ends {
    Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

/// What is read of bytes that come in parts, and what is left behind the header.
async fn read_parts(parts: &[&[u8]]) -> (io::Result<Option<Ends>>, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.set_nodelay(true).unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let send = async {
        for part in parts {
            client.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        client.shutdown().await.unwrap();
    };
    let read = async {
        let read = read(&mut server).await;
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();
        (read, rest)
    };
    tokio::join!(send, read).1
}

#[test]
fn a_line_of_version_1_is_read_as_it_is_written() {
    let read = |text: &str| parse_v1(text.as_bytes());
    assert_eq!(
        read("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"),
        Some(Some(ends("192.0.2.1:56324", "198.51.100.2:443")))
    );
    assert_eq!(
        read("PROXY TCP6 2001:db8::1 ::1 0 65535\r\n"),
        Some(Some(ends("[2001:db8::1]:0", "[::1]:65535")))
    );
    assert_eq!(read("PROXY UNKNOWN\r\n"), Some(None));
    assert_eq!(read("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n"), Some(None));
    for text in [
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 1\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 \r\n",
        "PROXY TCP4 192.0.2.1  198.51.100.2 56324 443\r\n",
        "PROXY TCP4 192.0.2.256 198.51.100.2 56324 443\r\n",
        "PROXY TCP4 ::1 ::2 56324 443\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 56324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 0443 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 +443 443\r\n",
        "PROXY TCP5 192.0.2.1 198.51.100.2 56324 443\r\n",
        "PROXY\r\n",
        "PROXY \r\n",
        "proxy UNKNOWN\r\n",
    ] {
        assert_eq!(read(text), None, "{text:?}");
    }
}

#[test]
fn a_header_of_version_2_needs_its_addresses_and_a_known_family() {
    let rest = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 4, 1, 0xbb];
    let expected = ends("192.0.2.1:56324", "198.51.100.2:443");
    assert_eq!(parse_v2(V2_PROXY, V2_TCP4, &rest), Some(Some(expected)));
    let further = [&rest[..], &[4, 0, 1, 0]].concat();
    assert_eq!(parse_v2(V2_PROXY, V2_TCP4, &further), Some(Some(expected)), "what follows is read over");
    assert_eq!(parse_v2(V2_PROXY, V2_TCP4, &rest[..11]), None);
    assert_eq!(parse_v2(V2_PROXY, V2_TCP6, &rest), None);
    assert_eq!(parse_v2(V2_LOCAL, 0, &[]), Some(None));
    for family in [0x00, 0x12, 0x22, 0x31, 0x32] {
        assert_eq!(parse_v2(V2_PROXY, family, &rest), Some(None), "{family:#x}");
    }
    for (command, family) in [(0x11, V2_TCP4), (0x22, V2_TCP4), (0x01, 0), (V2_PROXY, 0x41), (V2_PROXY, 0x13)]
    {
        assert_eq!(parse_v2(command, family, &rest), None, "{command:#x} {family:#x}");
    }
}

#[tokio::test]
async fn nothing_behind_a_header_is_read() {
    let v1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n";
    let expected = ends("192.0.2.1:56324", "198.51.100.2:443");
    let v2 = write(ProxyHeader::V2, expected);
    for header in [&v1[..], &v2] {
        for cut in [1, 6, 13, 20, header.len() - 1, header.len()] {
            let (begin, end) = header.split_at(cut);
            let (said, rest) = read_parts(&[begin, &[end, b"GET /\n"].concat()]).await;
            assert_eq!((said.unwrap(), &rest[..]), (Some(expected), &b"GET /\n"[..]), "{cut}");
        }
    }
    let (said, rest) = read_parts(&[b"PROXY UNKNOWN\r\n\n\n"]).await;
    assert_eq!((said.unwrap(), &rest[..]), (None, &b"\n\n"[..]));
}

#[tokio::test]
async fn what_is_no_header_is_an_error() {
    let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 200], b"\r\n"].concat();
    let large = [&V2_BEGIN[..], &[V2_LOCAL, 0, 0xff, 0xff]].concat();
    for bytes in
        [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"", b"PROXY UNKNOWN", b"PROXY TCP4 x\r\n", &long, &large]
    {
        assert!(read_parts(&[bytes]).await.0.is_err(), "{bytes:?}");
    }
}

#[test]
fn addresses_of_two_families_are_told_in_one() {
    let mixed = ends("192.0.2.1:1", "[2001:db8::1]:2");
    assert_eq!(write(ProxyHeader::V1, mixed), b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 2\r\n");
    let disguised = ends("[::ffff:192.0.2.1]:1", "192.0.2.2:2");
    assert_eq!(write(ProxyHeader::V1, disguised), b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
}

proptest! {
    #[test]
    fn what_is_written_is_read(source: SocketAddr, destination: SocketAddr) {
        let plain = |addr: SocketAddr| SocketAddr::new(addr.ip(), addr.port());
        let ends = Ends { source: plain(source), destination: plain(destination) };
        let family = |ends: Ends| [ends.source.ip(), ends.destination.ip()].map(|ip| ip.to_canonical());
        let line = write(ProxyHeader::V1, ends);
        prop_assert!(line.len() <= V1_BYTES_MAX);
        let read = parse_v1(&line).unwrap().unwrap();
        prop_assert_eq!((family(read), read.source.port()), (family(ends), ends.source.port()));
        let header = write(ProxyHeader::V2, ends);
        let (begin, rest) = header.split_at(V2_FIXED_BYTES);
        prop_assert_eq!(begin[..12].to_vec(), V2_BEGIN.to_vec());
        let read = parse_v2(begin[12], begin[13], rest).unwrap().unwrap();
        prop_assert_eq!((family(read), read.destination.port()), (family(ends), ends.destination.port()));
    }

    #[test]
    fn parsing_never_panics(line in prop::collection::vec(any::<u8>(), 0..110), command: u8, family: u8) {
        let _ = (parse_v1(&line), parse_v2(command, family, &line));
    }
}
