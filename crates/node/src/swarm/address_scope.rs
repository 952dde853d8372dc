//! Classifies addresses: public, private, a DNS name, or not dialable.
//!
//! Peers and DHT answers can claim any address. The classification keeps each routing table to addresses of its own
//! network, and prevents others from making this node connect to internal services.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// The scope of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddressScope {
    /// A host on the internet.
    Public,
    /// This machine, or a private network.
    Private,
    /// A DNS name: its scope is known only after it is resolved.
    Name,
    /// Not dialable: no host, multicast, a reserved range, or through a relay.
    Undialable,
}

/// Classifies an address by its first part.
pub(crate) fn address_scope(address: &Multiaddr) -> AddressScope {
    if address.iter().any(|part| matches!(part, Protocol::P2pCircuit)) {
        return AddressScope::Undialable;
    }
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => scope_v4(ip),
        Some(Protocol::Ip6(ip)) => scope_v6(ip),
        Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_)) => {
            AddressScope::Name
        }
        _ => AddressScope::Undialable,
    }
}

/// The DNS name at the start of the address, in lower case.
pub(crate) fn name(address: &Multiaddr) -> Option<String> {
    match address.iter().next() {
        Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) | Protocol::Dnsaddr(name)) => {
            Some(name.to_ascii_lowercase())
        }
        _ => None,
    }
}

/// The IP address at the start of the address.
pub(crate) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(ip.into()),
        Some(Protocol::Ip6(ip)) => Some(ip.into()),
        _ => None,
    }
}

fn scope_v4(ip: Ipv4Addr) -> AddressScope {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && (b & 0xc0) == 64;
    if ip.is_loopback() || ip.is_private() || ip.is_link_local() || shared {
        return AddressScope::Private;
    }
    let protocol_or_benchmark = (a, b, c) == (192, 0, 0) || (a == 198 && (b & 0xfe) == 18);
    if a == 0 || a >= 224 || ip.is_documentation() || protocol_or_benchmark {
        return AddressScope::Undialable;
    }
    AddressScope::Public
}

fn scope_v6(ip: Ipv6Addr) -> AddressScope {
    if let Some(ip) = ip.to_ipv4_mapped() {
        return scope_v4(ip);
    }
    let [first, second, ..] = ip.segments();
    if ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() {
        return AddressScope::Private;
    }
    // Global unicast is 2000::/3, without documentation addresses and without tunnels (Teredo, 6to4), which can
    // name any IPv4 host.
    let global = first & 0xe000 == 0x2000;
    let documentation = (first, second) == (0x2001, 0x0db8);
    let tunnel = (first, second) == (0x2001, 0) || first == 0x2002;
    if global && !documentation && !tunnel { AddressScope::Public } else { AddressScope::Undialable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_classified_by_scope() {
        let cases = [
            ("/ip4/1.1.1.1/tcp/4001", AddressScope::Public),
            ("/ip6/2606:4700::1111/udp/4001/quic-v1", AddressScope::Public),
            ("/ip4/127.0.0.1/tcp/4001", AddressScope::Private),
            ("/ip4/10.1.2.3/tcp/4001", AddressScope::Private),
            ("/ip4/172.16.0.1/tcp/4001", AddressScope::Private),
            ("/ip4/192.168.1.1/tcp/4001/ws", AddressScope::Private),
            ("/ip4/169.254.169.254/tcp/80", AddressScope::Private),
            ("/ip4/100.64.0.1/tcp/4001", AddressScope::Private),
            ("/ip6/::1/tcp/4001", AddressScope::Private),
            ("/ip6/fd00::1/tcp/4001", AddressScope::Private),
            ("/ip6/fe80::1/tcp/4001", AddressScope::Private),
            ("/ip6/::ffff:127.0.0.1/tcp/4001", AddressScope::Private),
            ("/ip4/0.0.0.0/tcp/4001", AddressScope::Undialable),
            ("/ip4/255.255.255.255/tcp/4001", AddressScope::Undialable),
            ("/ip4/224.0.0.1/udp/4001/quic-v1", AddressScope::Undialable),
            ("/ip4/203.0.113.7/tcp/4001", AddressScope::Undialable),
            ("/ip6/64:ff9b::7f00:1/tcp/4001", AddressScope::Undialable),
            ("/ip6/2002:7f00:1::/tcp/4001", AddressScope::Undialable),
            ("/ip6/::/tcp/4001", AddressScope::Undialable),
            ("/dns4/example.org/tcp/4001", AddressScope::Name),
            ("/dnsaddr/bootstrap.libp2p.io", AddressScope::Name),
            ("/unix/socket", AddressScope::Undialable),
            (
                "/ip4/1.1.1.1/tcp/4001/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ/p2p-circuit",
                AddressScope::Undialable,
            ),
        ];
        for (address, expected) in cases {
            assert_eq!(address_scope(&address.parse().unwrap()), expected, "{address}");
        }
    }
}
