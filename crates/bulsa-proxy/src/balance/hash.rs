//! The same client to the same target, without a table of clients: rendezvous hashing.
//!
//! Each pair of client and target has a score; the target with the best one gets the client. A target that comes or goes
//! moves only the clients that it wins or had: one in n. (Thaler and Ravishankar, "Using name-based mappings to
//! increase hit rates", 1998; the weighting by logarithm is Schindelhauer and Schomaker's.)

use std::net::IpAddr;

/// What a client is told apart by, as a number: the whole of an IPv4 address, the network of an IPv6 one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Affinity(u64);

impl Affinity {
    pub(crate) fn of(client: IpAddr) -> Self {
        Self(match client.to_canonical() {
            IpAddr::V4(address) => u64::from(u32::from(address)),
            // One household or host has a /64, and changes addresses within it.
            IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
        })
    }

    /// How well a target suits the client: the highest score wins.
    pub(super) fn score(self, target: u64, weight: u32) -> f64 {
        // From 0 to 1, both excluded.
        let drawn = ((mix(self.0 ^ mix(target)) >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
        f64::from(weight) / -drawn.ln()
    }
}

/// Spreads the bits of a number (the finaliser of splitmix64).
pub(crate) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(client: u32, targets: &[(u64, u32)]) -> u64 {
        let affinity = Affinity::of(IpAddr::V4(client.into()));
        let score = |(target, weight): &(u64, u32)| affinity.score(*target, *weight);
        targets.iter().max_by(|a, b| score(a).total_cmp(&score(b))).unwrap().0
    }

    #[test]
    fn a_further_target_moves_one_client_in_n_and_only_to_itself() {
        let four: Vec<_> = (1..=4).map(|id| (id, 1)).collect();
        let five: Vec<_> = (1..=5).map(|id| (id, 1)).collect();
        let clients = 0x0a00_0000..0x0a00_2710;
        let moved: Vec<_> = clients.filter(|c| best(*c, &four) != best(*c, &five)).collect();
        assert!(moved.iter().all(|client| best(*client, &five) == 5));
        assert!((1_800..2_200).contains(&moved.len()), "{} of 10,000 moved", moved.len());
    }

    #[test]
    fn shares_follow_weights() {
        let targets = [(1, 1), (2, 3)];
        let of_two = (0..10_000).filter(|client| best(*client, &targets) == 2).count();
        assert!((7_300..7_700).contains(&of_two), "{of_two}");
    }

    #[test]
    fn an_ipv6_client_keeps_its_target_within_its_network() {
        let affinity = |text: &str| Affinity::of(text.parse().unwrap());
        assert_eq!(affinity("2001:db8:1:2::1"), affinity("2001:db8:1:2:ffff::9"));
        assert_ne!(affinity("2001:db8:1:2::1"), affinity("2001:db8:1:3::1"));
        assert_eq!(affinity("::ffff:10.0.0.1"), affinity("10.0.0.1"));
    }
}
