//! Which addresses a new network gets.
//!
//! Owns: choosing a block that nothing on this host uses. Never: looks anything up; what is in use is passed in.
//!
//! A block is chosen although the Engine would do so itself, since it refuses fixed addresses in a block that it chose.
//! The Engine gives out 172.17.0.0/16, 172.18.0.0/16 and so on, a whole /16 each; so ours are small, come from
//! the other end, and leave those whole as long as they can. 172.31.0.0/16 comes last: it is the block of many a
//! cloud's private network, whose other hosts have no route of their own here.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// A network gets so many bits: 253 addresses for containers.
const PREFIX: u8 = 24;

/// The second halves of 172.x.0.0/16, in the order of use.
const OF_172: [u8; 15] = [30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 31];

/// The second halves of 10.x.0.0/16, in the order of use, before 172.31.
const OF_10: [u8; 10] = [219, 218, 217, 216, 215, 214, 213, 212, 211, 210];

/// The first block that overlaps with none in `used`; `None` if there is none.
#[must_use]
pub fn choose(used: &[Ipv4Net]) -> Option<Ipv4Net> {
    let (last, first) = OF_172.split_last()?;
    let halves = first
        .iter()
        .map(|second| (172, *second))
        .chain(OF_10.iter().map(|second| (10, *second)))
        .chain([(172, *last)]);
    halves
        .flat_map(|(first, second)| (0..=255).map(move |third| Ipv4Addr::new(first, second, third, 0)))
        .filter_map(|address| Ipv4Net::new(address, PREFIX).ok())
        .find(|block| !used.iter().any(|other| overlap(block, other)))
}

fn overlap(one: &Ipv4Net, other: &Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// The blocks in the text of `/proc/net/route`, the default route left out. A line that can't be read is skipped.
#[must_use]
pub fn routes(text: &str) -> Vec<Ipv4Net> {
    let parse = |hex: &str| u32::from_str_radix(hex, 16).ok().map(|raw| Ipv4Addr::from(raw.swap_bytes()));
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            Ipv4Net::with_netmask(parse(fields.get(1)?)?, parse(fields.get(7)?)?).ok()
        })
        .filter(|block| block.prefix_len() > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<Ipv4Net> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn blocks_come_from_the_far_end_and_never_overlap() {
        let mut used = nets(&["172.17.0.0/16"]);
        for expected in ["172.30.0.0/24", "172.30.1.0/24"] {
            let block = choose(&used).unwrap();
            assert_eq!(block.to_string(), expected);
            used.push(block);
        }
        used.extend(nets(&["172.30.0.0/15"]));
        assert_eq!(choose(&used).unwrap().to_string(), "172.29.0.0/24");
        used.extend(nets(&["172.29.0.128/25"]));
        assert_eq!(choose(&used).unwrap().to_string(), "172.29.1.0/24");
    }

    #[test]
    fn a_crowded_host_still_gets_one_and_a_full_one_none() {
        let mut used = nets(&["172.16.0.0/13", "172.24.0.0/14", "172.28.0.0/15", "172.30.0.0/16"]);
        assert_eq!(choose(&used).unwrap().to_string(), "10.219.0.0/24");
        used.extend(nets(&["10.0.0.0/8"]));
        assert_eq!(choose(&used).unwrap().to_string(), "172.31.0.0/24");
        used.extend(nets(&["172.31.0.0/16"]));
        assert_eq!(choose(&used), None);
    }

    #[test]
    fn the_kernels_routes_are_read() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                    eth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                    eth0\t0002A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                    docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
                    broken\n";
        assert_eq!(routes(text), nets(&["192.168.2.0/24", "172.17.0.0/16"]));
    }
}
