//! The cookie that keeps a client with a target.
//!
//! Owns: its name and values. Never: trusts one: a value is a keyed hash of service and target, made anew for each table,
//! and a cookie is looked up among the values of the targets that are there. So nobody can make one for a target of their
//! choice, what a target is called cannot be read from it, and one for a target that has gone means nothing.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of a value's hash that are kept: 96 bits are beyond guessing, and short.
const VALUE_BYTES: usize = 12;

/// The cookie of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cookie {
    /// The same in every table, and for every release.
    name: String,
    /// By the target's place in the service.
    values: Vec<String>,
}

impl Cookie {
    /// The cookie of a service with these targets.
    pub(crate) fn new<'t>(secret: &[u8], service: &str, targets: impl Iterator<Item = &'t str>) -> Self {
        let name = format!("bulsa_{}", &hash(secret, &["name", service])[..8]);
        let values = targets.map(|target| hash(secret, &["target", service, target])).collect();
        Self { name, values }
    }

    /// The target's place that a request's `Cookie` field names.
    pub(crate) fn find(&self, field: &str) -> Option<usize> {
        let pairs = field.split(';').filter_map(|pair| pair.trim().split_once('='));
        let ours = pairs.filter(|(name, _)| *name == self.name);
        // A browser sends several of a name if they were set for several paths or domains.
        ours.filter_map(|(_, value)| self.values.iter().position(|known| known == value)).next()
    }

    /// What an answer sets, for the target at that place.
    pub(crate) fn set(&self, target: usize, secure: bool) -> Option<String> {
        let value = self.values.get(target)?;
        let secure = if secure { "; Secure" } else { "" };
        Some(format!("{}={value}; Path=/; HttpOnly; SameSite=Lax{secure}", self.name))
    }
}

fn hash(secret: &[u8], parts: &[&str]) -> String {
    // A key of any length is taken.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part.as_bytes());
    }
    let bytes = mac.finalize().into_bytes();
    bytes.iter().take(VALUE_BYTES).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(secret: &str, targets: &[&str]) -> Cookie {
        Cookie::new(secret.as_bytes(), "shop/web", targets.iter().copied())
    }

    fn pair(cookie: &Cookie, target: usize) -> String {
        let set = cookie.set(target, false).unwrap();
        set.split(';').next().unwrap().to_owned()
    }

    #[test]
    fn it_names_its_target_wherever_that_stands_in_the_next_table() {
        let (old, new) = (cookie("s", &["a", "b"]), cookie("s", &["c", "b", "a"]));
        assert_eq!(new.find(&format!("x=1; {}; y=2", pair(&old, 0))), Some(2));
        assert_eq!(new.find(&pair(&old, 1)), Some(1));
        assert_eq!(cookie("s", &["c"]).find(&pair(&old, 0)), None, "it has gone");
    }

    #[test]
    fn nobody_can_make_one_without_the_secret() {
        let (ours, theirs) = (cookie("s", &["a"]), cookie("t", &["a"]));
        let value = pair(&theirs, 0).split_once('=').unwrap().1.to_owned();
        let name = pair(&ours, 0).split_once('=').unwrap().0.to_owned();
        assert_eq!(ours.find(&format!("{name}={value}")), None);
        assert_eq!(ours.find(&format!("{name}=a")), None);
        assert_eq!(ours.find("nonsense"), None);
    }

    #[test]
    fn no_script_reads_it_and_over_tls_it_stays_there() {
        let cookie = cookie("s", &["a"]);
        assert!(cookie.set(0, false).unwrap().ends_with("; Path=/; HttpOnly; SameSite=Lax"));
        assert!(cookie.set(0, true).unwrap().ends_with("; Secure"));
        assert_eq!(cookie.set(1, true), None);
    }
}
