//! The secret that sticky cookies are signed with: made once, the same for every agent and proxy from then on.
//!
//! Owns: where it comes from, and its form in the store. Never: shows it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bulsa_proxy::Secret;
use rustix::{
    io,
    rand::{GetRandomFlags, getrandom},
};

/// The daemon's value in the store that holds it.
pub(in crate::agent::driver) const KEY: &str = "sticky_secret";
/// Its length in bytes.
const BYTES: usize = 32;

/// The secret, as far as it is known.
pub(in crate::agent::driver) struct Found {
    /// What cookies are signed with.
    pub(in crate::agent::driver) secret: Secret,
    /// What the store is to keep, where it doesn't have it.
    pub(in crate::agent::driver) unsaved: Option<String>,
}

/// The store's; else that of the last table, whose clients have its cookies; else a new one.
///
/// # Errors
/// When the system has no randomness: then nobody is sticky.
pub(in crate::agent::driver) fn find(
    values: &[(String, String)],
    last: Option<Secret>,
) -> Result<Found, io::Errno> {
    let stored = values.iter().find(|(key, _)| key == KEY).and_then(|(_, text)| STANDARD.decode(text).ok());
    if let Some(bytes) = stored.filter(|bytes| bytes.len() == BYTES) {
        return Ok(Found { secret: Secret(bytes), unsaved: None });
    }
    let secret = match last.filter(|last| last.0.len() == BYTES) {
        Some(last) => last,
        None => fresh()?,
    };
    let unsaved = Some(STANDARD.encode(&secret.0));
    Ok(Found { secret, unsaved })
}

fn fresh() -> Result<Secret, io::Errno> {
    let mut bytes = vec![0_u8; BYTES];
    let mut filled = 0;
    while filled < bytes.len() {
        // Until the system has any it blocks, which is over before a daemon is started.
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(Secret(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_store_has_counts_then_what_the_proxies_have() {
        let first = find(&[], None).unwrap();
        assert_eq!(first.secret.0.len(), BYTES);
        assert_ne!(first.secret, find(&[], None).unwrap().secret);
        let value = |text: &str| vec![(KEY.to_owned(), text.to_owned())];
        let stored = value(&first.unsaved.unwrap());
        let other = Secret(vec![7; BYTES]);
        let found = find(&stored, Some(other.clone())).unwrap();
        assert_eq!((found.secret, found.unsaved), (first.secret, None));
        for broken in [vec![], value("no base64"), value("c2hvcnQ=")] {
            let found = find(&broken, Some(other.clone())).unwrap();
            assert_eq!(found.secret, other);
            assert_eq!(found.unsaved, Some(STANDARD.encode([7; BYTES])));
        }
    }
}
