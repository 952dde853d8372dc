//! The address of a client: the peer's, or the one that a configured proxy reports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap, HeaderValue};
use ipnet::IpNet;

/// The header in which proxies name their clients, nearest last.
const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The most hops that are read. Longer chains are not legitimate.
const HOPS_MAX: usize = 16;

/// The address of the client of a request.
///
/// The chain of proxies is read from the nearest one outwards, as long as each is a configured proxy. The first other
/// address is the client's. What precedes it in the header was sent by the client and may be any bytes.
pub(crate) fn address_of(headers: &HeaderMap, extensions: &Extensions, proxies: &[IpNet]) -> IpAddr {
    let mut address = extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip().to_canonical());
    let lines: Vec<_> = headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b',')).take(HOPS_MAX) {
        if !is_proxy(address, proxies) {
            break;
        }
        let Some(next) = std::str::from_utf8(hop).ok().map(str::trim).and_then(parse_hop) else { break };
        address = next.to_canonical();
    }
    address
}

/// Whether an address belongs to a configured proxy.
pub(crate) fn is_proxy(address: IpAddr, proxies: &[IpNet]) -> bool {
    proxies.iter().any(|network| network.contains(&address))
}

/// An address, with or without a port, IPv6 with or without brackets.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let bare = hop.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|with_port| with_port.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(peer: &str, forwarded: &[&str], proxies: &[&str]) -> String {
        address_of_bytes(peer, &forwarded.iter().map(|line| line.as_bytes()).collect::<Vec<_>>(), proxies)
    }

    fn address_of_bytes(peer: &str, forwarded: &[&[u8]], proxies: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(value).expect("a header"));
        }
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo(SocketAddr::new(peer.parse().expect("an address"), 9)));
        let proxies: Vec<IpNet> = proxies.iter().map(|net| net.parse().expect("a network")).collect();
        address_of(&headers, &extensions, &proxies).to_string()
    }

    #[test]
    fn no_proxy_is_trusted_by_default() {
        assert_eq!(address("192.0.2.1", &["203.0.113.9"], &[]), "192.0.2.1");
    }

    #[test]
    fn configured_proxy_is_trusted_for_its_own_client_only() {
        let ours = ["10.0.0.0/8"];
        assert_eq!(address("10.0.0.1", &["203.0.113.9"], &ours), "203.0.113.9");
        assert_eq!(address("10.0.0.1", &["198.51.100.1, 203.0.113.9"], &ours), "203.0.113.9");
        assert_eq!(address("10.0.0.1", &["203.0.113.9", "10.0.0.2"], &ours), "203.0.113.9");
        assert_eq!(address("::ffff:10.0.0.1", &["[2001:db8::1]:443"], &ours), "2001:db8::1");
    }

    #[test]
    fn malformed_hop_ends_the_walk() {
        let ours = ["10.0.0.0/8"];
        assert_eq!(address_of_bytes("10.0.0.1", &[b"\xff, 203.0.113.9"], &ours), "203.0.113.9");
        assert_eq!(address_of_bytes("10.0.0.1", &[b"203.0.113.9, \xff"], &ours), "10.0.0.1");
        assert_eq!(address("10.0.0.1", &["203.0.113.9, unknown"], &["10.0.0.0/8"]), "10.0.0.1");
    }
}
