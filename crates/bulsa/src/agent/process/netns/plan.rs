//! Names and addresses of namespaces.
//!
//! Owns: deriving a name, choosing a block of addresses that nothing on this host routes, and reading what `ip -json`
//! prints. Pure. Never: runs anything.

use std::net::Ipv4Addr;

use bulsa_core::ids::ReplicaId;
use serde_json::Value;

/// Where blocks come from, in this order: addresses that are routed nowhere in the internet and in few private
/// networks. The first is set aside for benchmarks, the second for providers (and used by some overlay networks,
/// whose firewall rules drop it on other interfaces, so it comes second).
pub const POOLS: [(Ipv4Addr, u8); 2] =
    [(Ipv4Addr::new(198, 18, 0, 0), 15), (Ipv4Addr::new(100, 64, 0, 0), 10)];

/// Four addresses: network, host, replica, broadcast.
const BLOCK_ADDRESSES: u32 = 4;

/// At most this many blocks of a pool are looked at.
const BLOCKS_TRIED_MAX: u32 = 8192;

/// A route to more than this (a prefix shorter than /8) is a default route in pieces: a block may lie in it.
const WIDE_PREFIX: u8 = 8;

/// Names begin with this.
const PREFIX: &str = "bls-";

/// Letters of a name that follow from the owner, five bits each.
const OWNER_LETTERS: u32 = 4;

/// Letters that follow from the replica: with the rest, 15, the most that the kernel allows.
const REPLICA_LETTERS: u32 = 7;

/// What all names of an owner's namespaces begin with. The owner must be unique on the host: a project together with
/// its state directory.
#[must_use]
pub fn prefix_of(owner: &str) -> String {
    format!("{PREFIX}{}", letters(hash(owner.as_bytes()), OWNER_LETTERS))
}

/// The name of a replica's namespace and of the host's interface into it: always the same for the same replica.
#[must_use]
pub fn name_of(owner: &str, replica: &ReplicaId) -> String {
    let replica = hash(format!("{owner}\n{replica}").as_bytes());
    format!("{}{}", prefix_of(owner), letters(replica, REPLICA_LETTERS))
}

/// A block of four addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block(u32);

impl Block {
    /// The block in which the host has this address.
    pub(super) fn of_host(host: Ipv4Addr) -> Self {
        Self(host.to_bits() / BLOCK_ADDRESSES * BLOCK_ADDRESSES)
    }

    /// The host's address.
    pub(super) fn host(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0 + 1)
    }

    /// The replica's address.
    pub(super) fn inside(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0 + 2)
    }
}

/// A destination that this host routes: network and prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route(Ipv4Addr, u8);

impl Route {
    fn meets(self, block: Block) -> bool {
        let shorter = self.1.min(30);
        self.1 >= WIDE_PREFIX && (self.0.to_bits() ^ block.0) & mask(shorter) == 0
    }
}

/// A block that no route meets. The search begins where the name says, so that a replica's address rarely is one
/// that another replica had a moment ago.
pub(super) fn choose_block(name: &str, routes: &[Route]) -> Option<Block> {
    POOLS.iter().find_map(|&(network, prefix)| {
        let blocks = (1_u32 << (32 - prefix)) / BLOCK_ADDRESSES;
        let start = u32::try_from(hash(name.as_bytes()) % u64::from(blocks)).unwrap_or(0);
        (0..blocks.min(BLOCKS_TRIED_MAX))
            .map(|step| Block(network.to_bits() + (start + step) % blocks * BLOCK_ADDRESSES))
            .find(|&block| !routes.iter().any(|route| route.meets(block)))
    })
}

/// What `ip -4 -json route show table all` prints; `None` if it isn't that. Default routes are left out.
pub(super) fn parse_routes(json: &str) -> Option<Vec<Route>> {
    let routes: Vec<Value> = serde_json::from_str(json).ok()?;
    let mut found = Vec::new();
    for route in &routes {
        let destination = route.get("dst")?.as_str()?;
        if destination == "default" {
            continue;
        }
        let (network, prefix) = destination.split_once('/').unwrap_or((destination, "32"));
        found.push(Route(network.parse().ok()?, prefix.parse().ok().filter(|prefix| *prefix <= 32)?));
    }
    Some(found)
}

/// The first address that `ip -4 -json address show dev …` prints.
pub(super) fn parse_host_address(json: &str) -> Option<Ipv4Addr> {
    let interfaces: Vec<Value> = serde_json::from_str(json).ok()?;
    let addresses =
        interfaces.iter().filter_map(|interface| interface.get("addr_info")?.as_array()).flatten();
    addresses.filter_map(|address| address.get("local")?.as_str()?.parse().ok()).next()
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

/// FNV-1a, then one round of mixing, so that every bit depends on every byte. Names must be the same in every build,
/// which the standard library's hashes don't promise.
fn hash(bytes: &[u8]) -> u64 {
    let plain = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (plain ^ (plain >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

fn letters(hash: u64, count: u32) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let letter = |i: u32| char::from(ALPHABET[usize::from((hash >> (59 - 5 * i)) as u8 & 31)]);
    (0..count).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use bulsa_core::ids::ReleaseId;
    use proptest::prelude::*;

    use super::*;

    fn replica(ordinal: u32) -> ReplicaId {
        ReplicaId { release: ReleaseId(1), service: "web".to_owned(), ordinal, attempt: 1 }
    }

    #[test]
    fn names_fit_the_kernel_stay_the_same_and_show_their_owner() {
        let name = name_of("/var/lib/bulsa shop", &replica(1));
        assert_eq!(name, "bls-xosxgg5kd4v");
        assert_eq!(name.len(), 15);
        assert!(name.starts_with(&prefix_of("/var/lib/bulsa shop")));
        assert_ne!(name, name_of("/var/lib/bulsa shop", &replica(2)));
        assert!(!name.starts_with(&prefix_of("/var/lib/bulsa blog")));
    }

    #[test]
    fn routes_are_read_without_the_default_ones() {
        let json = r#"[{"dst":"default","gateway":"192.0.2.1"},{"dst":"172.17.0.0/16","dev":"docker0"},
                       {"type":"local","dst":"127.0.0.1","table":"local"}]"#;
        let expected = [Route([172, 17, 0, 0].into(), 16), Route([127, 0, 0, 1].into(), 32)];
        assert_eq!(parse_routes(json).unwrap(), expected);
        for bad in ["", "{}", "[{}]", r#"[{"dst":"x"}]"#, r#"[{"dst":"10.0.0.0/33"}]"#] {
            assert!(parse_routes(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_hosts_address_is_read() {
        let json =
            r#"[{},{"ifname":"bls-x","addr_info":[{"family":"inet","local":"198.18.0.5","prefixlen":30}]}]"#;
        let host = parse_host_address(json).unwrap();
        assert_eq!(Block::of_host(host).inside(), Ipv4Addr::new(198, 18, 0, 6));
        assert_eq!(parse_host_address("[]"), None);
    }

    #[test]
    fn a_block_that_is_routed_is_passed_over() {
        let first = choose_block("bls-x", &[]).unwrap();
        let taken = Route(first.host(), 32);
        let second = choose_block("bls-x", &[taken]).unwrap();
        assert_ne!(first, second);
        assert_eq!(second.0 % 4, 0);
        // A whole pool that is routed sends it to the next; pieces of a default route don't.
        let pool = Route(POOLS[0].0, POOLS[0].1);
        assert_eq!(choose_block("bls-x", &[pool]).unwrap().host().octets()[0], 100);
        assert_eq!(
            choose_block("bls-x", &[Route([0, 0, 0, 0].into(), 1), Route([128, 0, 0, 0].into(), 1)]),
            Some(first)
        );
        assert_eq!(choose_block("bls-x", &[pool, Route(POOLS[1].0, POOLS[1].1)]), None);
    }

    proptest! {
        #[test]
        fn a_chosen_block_lies_in_a_pool_and_meets_no_route(name in "[a-z2-7]{1,11}", routes in proptest::collection::vec((any::<u32>(), 8..=32_u8), 0..20)) {
            let routes: Vec<Route> = routes.iter().map(|(bits, prefix)| Route(Ipv4Addr::from_bits(*bits), *prefix)).collect();
            if let Some(block) = choose_block(&name, &routes) {
                assert!(POOLS.iter().any(|&(network, prefix)| (network.to_bits() ^ block.0) & mask(prefix) == 0));
                for address in [block.host(), block.inside()] {
                    for Route(network, prefix) in &routes {
                        assert_ne!(address.to_bits() & mask(*prefix), network.to_bits() & mask(*prefix));
                    }
                }
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".*") {
            drop(parse_routes(&text));
            let _ = parse_host_address(&text);
        }
    }
}
