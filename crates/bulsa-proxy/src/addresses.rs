//! How many connections each client address has open, over all workers.
//!
//! Owns: the counts, and the limit on them.
//! Never: on the path of a request. A connection takes a lock when it comes and when it goes.
//!
//! An IPv6 client is counted by its /64: that is what one customer gets at least, and any address in it is theirs.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::balance::mix;

/// Parts that are locked each on its own, so that workers seldom meet.
const SHARDS: usize = 16;

/// Who counts as one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Block {
    V4(u32),
    /// The upper half of an address.
    V6(u64),
}

impl From<IpAddr> for Block {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// The counts. There is no entry for who has no connection, so there are never more than connections.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    shards: [Mutex<HashMap<Block, u32>>; SHARDS],
}

impl Addresses {
    /// Counts one connection more, unless the address has as many as it may.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr, limit: u32) -> Option<Counted> {
        let block = Block::from(address);
        let mut shard = self.shard(block);
        let count = shard.entry(block).or_default();
        if limit <= *count {
            // The entry is not new: a limit is at least 1.
            return None;
        }
        *count += 1;
        Some(Counted { addresses: Arc::clone(self), block })
    }

    fn shard(&self, block: Block) -> MutexGuard<'_, HashMap<Block, u32>> {
        // Who picks addresses that share a lock gains nothing; those that share a bucket are kept apart by the map's own hash.
        let bits = match block {
            Block::V4(bits) => u64::from(bits),
            Block::V6(bits) => bits,
        };
        let index = mix(bits) as usize % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is counted, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    addresses: Arc<Addresses>,
    block: Block,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut shard = self.addresses.shard(self.block);
        if let Some(count) = shard.get_mut(&self.block) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&self.block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn known(addresses: &Addresses) -> usize {
        addresses.shards.iter().map(|shard| shard.lock().unwrap().len()).sum()
    }

    #[test]
    fn an_address_has_its_limit_and_others_have_theirs() {
        let addresses = Arc::new(Addresses::default());
        let first = addresses.enter(address("192.0.2.1"), 2).unwrap();
        let second = addresses.enter(address("::ffff:192.0.2.1"), 2).unwrap();
        assert!(addresses.enter(address("192.0.2.1"), 2).is_none());
        assert!(addresses.enter(address("192.0.2.2"), 2).is_some());
        drop(first);
        assert!(addresses.enter(address("192.0.2.1"), 2).is_some());
        drop(second);
        assert_eq!(known(&addresses), 0, "nothing is kept of who is gone");
    }

    #[test]
    fn a_lower_limit_takes_nobodys_connection_away() {
        let addresses = Arc::new(Addresses::default());
        let _open: Vec<_> = (0..5).map(|_| addresses.enter(address("192.0.2.1"), 9).unwrap()).collect();
        assert!(addresses.enter(address("192.0.2.1"), 1).is_none());
        assert_eq!(known(&addresses), 1);
    }

    #[test]
    fn an_ipv6_client_is_its_network_of_64_bits() {
        let addresses = Arc::new(Addresses::default());
        let _first = addresses.enter(address("2001:db8::1"), 1).unwrap();
        assert!(addresses.enter(address("2001:db8:0:0:ffff::2"), 1).is_none());
        assert!(addresses.enter(address("2001:db8:0:1::1"), 1).is_some());
    }
}
