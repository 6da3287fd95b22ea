//! The fields of a head, as places in its bytes.
//!
//! Names keep their case and fields their order: what is passed on is copied from here. The names that the proxy itself
//! has to do with are told apart once, when the head is read.

/// A place in a head's bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Where `part` stands in `whole`, of which it is a part.
    pub(super) fn of(part: &[u8], whole: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        debug_assert!(start <= whole.len() && start + part.len() <= whole.len());
        Self { start: start as u32, end: (start + part.len()) as u32 }
    }

    pub(crate) fn of_in(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// One field.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub(crate) name: Span,
    pub(crate) value: Span,
    pub(crate) known: Known,
}

/// The names that the proxy has to do with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    Connection,
    ContentLength,
    ContentType,
    Cookie,
    Date,
    Expect,
    Forwarded,
    Host,
    Http2Settings,
    KeepAlive,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    SecWebSocketAccept,
    SecWebSocketKey,
    SecWebSocketVersion,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    XForwardedFor,
    XForwardedHost,
    XForwardedPrefix,
    XForwardedProto,
    /// Another one whose name begins with `X-Forwarded-`, or one of them written with underscores: some applications
    /// read `X_Forwarded_For` as the same field.
    XForwardedOther,
    XRealIp,
    XRequestId,
    Other,
}

impl Known {
    /// Tells a name apart. By its length first: most names are none of these, and are passed over at once.
    pub(crate) fn of(name: &[u8]) -> Self {
        let is = |known: &[u8]| known.eq_ignore_ascii_case(name);
        let candidates: &[(&[u8], Self)] = match name.len() {
            2 => &[(b"te", Self::Te)],
            4 => &[(b"host", Self::Host), (b"date", Self::Date)],
            6 => &[(b"cookie", Self::Cookie), (b"expect", Self::Expect)],
            7 => &[(b"upgrade", Self::Upgrade), (b"trailer", Self::Trailer)],
            9 => &[(b"forwarded", Self::Forwarded), (b"x-real-ip", Self::XRealIp)],
            10 => &[(b"connection", Self::Connection), (b"keep-alive", Self::KeepAlive)],
            12 => &[(b"content-type", Self::ContentType), (b"x-request-id", Self::XRequestId)],
            14 => &[(b"content-length", Self::ContentLength), (b"http2-settings", Self::Http2Settings)],
            16 => &[(b"proxy-connection", Self::ProxyConnection)],
            17 => &[
                (b"transfer-encoding", Self::TransferEncoding),
                (b"sec-websocket-key", Self::SecWebSocketKey),
            ],
            18 => &[(b"proxy-authenticate", Self::ProxyAuthenticate)],
            19 => &[(b"proxy-authorization", Self::ProxyAuthorization)],
            20 => &[(b"sec-websocket-accept", Self::SecWebSocketAccept)],
            21 => &[(b"sec-websocket-version", Self::SecWebSocketVersion)],
            _ => &[],
        };
        if let Some((_, known)) = candidates.iter().find(|(known, _)| is(known)) {
            return *known;
        }
        if matches!(name.first(), Some(b'x' | b'X')) { Self::of_forwarded(name) } else { Self::Other }
    }

    fn of_forwarded(name: &[u8]) -> Self {
        const BEGIN: &[u8] = b"x-forwarded-";
        let dashed = |b: &u8| if *b == b'_' { b'-' } else { b.to_ascii_lowercase() };
        if !name.iter().map(dashed).take(BEGIN.len()).eq(BEGIN.iter().copied()) {
            return Self::Other;
        }
        let known: [(&[u8], Self); 4] = [
            (b"x-forwarded-for", Self::XForwardedFor),
            (b"x-forwarded-host", Self::XForwardedHost),
            (b"x-forwarded-prefix", Self::XForwardedPrefix),
            (b"x-forwarded-proto", Self::XForwardedProto),
        ];
        let found = known.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or(Self::XForwardedOther, |(_, known)| *known)
    }

    /// Its bit in a set of those that a head has.
    pub(super) fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Whether the field concerns one connection only.
    pub(crate) fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::ProxyAuthenticate
                | Self::ProxyAuthorization
                | Self::Te
                | Self::Trailer
                | Self::TransferEncoding
                | Self::Upgrade
                | Self::Http2Settings
        )
    }

    /// Whether `Connection` may name the field as one that concerns one connection only: never one that an application
    /// relies on for who asks, for what, and how long the message is. A client could strip what a proxy has set.
    pub(crate) fn may_be_nominated(self, name: &[u8]) -> bool {
        let vital: [&[u8]; 2] = [b"authorization", b"set-cookie"];
        matches!(self, Self::Other | Self::ContentType | Self::Date | Self::SecWebSocketKey)
            && !vital.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// The comma-separated parts of a value, without empty ones.
pub(crate) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_in_any_case() {
        assert_eq!(Known::of(b"Content-LENGTH"), Known::ContentLength);
        assert_eq!(Known::of(b"te"), Known::Te);
        assert_eq!(Known::of(b"test"), Known::Other);
        assert_eq!(Known::of(b"X-Forwarded-Port"), Known::XForwardedOther);
        assert_eq!(Known::of(b"x_forwarded_for"), Known::XForwardedOther);
        assert_eq!(Known::of(b"X-Forwarded"), Known::Other);
        assert_eq!(Known::of(b""), Known::Other);
    }

    #[test]
    fn vital_fields_cannot_be_nominated() {
        let may = |name: &[u8]| Known::of(name).may_be_nominated(name);
        for vital in ["Host", "Cookie", "Set-Cookie", "Authorization", "Content-Length", "X-Forwarded-For"] {
            assert!(!may(vital.as_bytes()), "{vital}");
        }
        assert!(may(b"X-Once"));
    }

    #[test]
    fn tokens_are_trimmed_and_none_is_empty() {
        let all: Vec<_> = tokens(b" keep-alive,, Upgrade ,").collect();
        assert_eq!(all, [&b"keep-alive"[..], b"Upgrade"]);
    }
}
