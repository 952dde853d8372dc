//! IP allow-list of an API key.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

/// Length of the prefix of IPv4-mapped IPv6 addresses in bits (RFC 4291, section 2.5.5.2).
const MAPPED_BITS: u8 = 96;

/// The networks from which a key may be used. An empty list allows every address. IPv4-mapped IPv6 addresses are
/// treated as IPv4. The text form is a comma-separated list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IpRules(Vec<IpNet>);

/// The text is not a valid allow-list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpRulesError {
    /// An entry is neither an IP address nor a network.
    #[error("{0:?} is neither an IP address nor a network such as 192.0.2.0/24 or 2001:db8::/32")]
    Invalid(String),
    /// More than [`IpRules::COUNT_MAX`] entries.
    #[error("An allow-list has at most {} addresses and networks", IpRules::COUNT_MAX)]
    TooMany,
}

impl IpRules {
    /// Maximum number of entries. Every request is compared with all of them.
    pub const COUNT_MAX: usize = 100;

    /// Parses addresses and networks. Empty texts are ignored.
    ///
    /// # Errors
    /// [`IpRulesError`] with the first invalid entry, or if there are too many.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, IpRulesError> {
        let mut networks = Vec::new();
        for text in texts.into_iter().map(str::trim).filter(|text| !text.is_empty()) {
            let network =
                network(text).ok_or_else(|| IpRulesError::Invalid(text.chars().take(64).collect()))?;
            if !networks.contains(&network) {
                networks.push(network);
            }
            if networks.len() > Self::COUNT_MAX {
                return Err(IpRulesError::TooMany);
            }
        }
        Ok(Self(networks))
    }

    /// Whether the list is empty, so that every address is allowed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a request from this address is allowed. An unknown address (`None`) is only allowed by an empty list.
    #[must_use]
    pub fn allow(&self, address: Option<IpAddr>) -> bool {
        let known = |address: IpAddr| {
            let address = address.to_canonical();
            self.0.iter().any(|network| network.contains(&address))
        };
        self.is_empty() || address.is_some_and(known)
    }

    /// Whether `other` allows every address that this list allows.
    #[must_use]
    pub fn are_within(&self, other: &Self) -> bool {
        let inside = |network: &IpNet| other.0.iter().any(|wide| wide.contains(network));
        other.is_empty() || (!self.is_empty() && self.0.iter().all(inside))
    }

    /// The entries as text: an address, or a network with its prefix length.
    pub fn iter(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|network| {
            if network.prefix_len() == network.max_prefix_len() {
                network.addr().to_string()
            } else {
                network.to_string()
            }
        })
    }
}

impl FromStr for IpRules {
    type Err = IpRulesError;

    fn from_str(text: &str) -> Result<Self, IpRulesError> {
        Self::parse(text.split(','))
    }
}

impl fmt::Display for IpRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, network) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{network}")?;
        }
        Ok(())
    }
}

/// Parses a network, or an address as a network of one address. Host bits are cleared.
fn network(text: &str) -> Option<IpNet> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    let network = match (network, network.addr().to_canonical()) {
        (IpNet::V6(v6), IpAddr::V4(mapped)) if v6.prefix_len() >= MAPPED_BITS => {
            IpNet::V4(Ipv4Net::new(mapped, v6.prefix_len() - MAPPED_BITS).ok()?)
        }
        (network, _) => network,
    };
    Some(network.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> IpRules {
        text.parse().unwrap()
    }

    fn allows(rules: &IpRules, address: &str) -> bool {
        rules.allow(Some(address.parse().unwrap()))
    }

    #[test]
    fn empty_list_allows_every_address() {
        assert!(IpRules::default().allow(None) && allows(&rules(" , "), "192.0.2.1"));
    }

    #[test]
    fn list_allows_only_its_networks() {
        let rules = rules("192.0.2.7, 198.51.100.77/24, 2001:db8::/32, 192.0.2.7/32");
        assert_eq!(rules.to_string(), "192.0.2.7,198.51.100.0/24,2001:db8::/32");
        for inside in ["192.0.2.7", "198.51.100.1", "2001:db8:9::1", "::ffff:192.0.2.7"] {
            assert!(allows(&rules, inside), "{inside}");
        }
        for outside in ["192.0.2.8", "198.51.101.1", "2001:db9::1", "::c000:207"] {
            assert!(!allows(&rules, outside), "{outside}");
        }
        assert!(!rules.allow(None), "an unknown address is rejected");
    }

    #[test]
    fn ipv4_mapped_address_is_treated_as_ipv4() {
        assert_eq!(rules("::ffff:192.0.2.7").to_string(), "192.0.2.7");
        assert_eq!(rules("::ffff:10.1.2.3/104").to_string(), "10.0.0.0/8");
        assert!(!allows(&rules("::/0"), "192.0.2.7") && allows(&rules("0.0.0.0/0"), "192.0.2.7"));
    }

    #[test]
    fn invalid_entry_is_named_in_the_error() {
        for bad in ["example.org", "192.0.2.7/33", "192.0.2", "fe80::1%eth0", "10.0.0.0/8/8", "[::1]"] {
            assert_eq!(bad.parse::<IpRules>(), Err(IpRulesError::Invalid(bad.to_owned())));
        }
        let many = (0..=IpRules::COUNT_MAX).map(|n| format!("10.0.0.{n}")).collect::<Vec<_>>().join(",");
        assert_eq!(many.parse::<IpRules>(), Err(IpRulesError::TooMany));
    }

    #[test]
    fn are_within_compares_lists() {
        let wide = rules("10.0.0.0/8,2001:db8::/32");
        for narrow in ["10.1.0.0/16", "10.0.0.1,2001:db8::1", "10.0.0.0/8,2001:db8::/32"] {
            assert!(rules(narrow).are_within(&wide), "{narrow}");
        }
        for wider in ["", "10.0.0.1,11.0.0.1", "0.0.0.0/0", "2001:db8::/31"] {
            assert!(!rules(wider).are_within(&wide), "{wider:?}");
        }
        assert!(wide.are_within(&IpRules::default()) && IpRules::default().are_within(&IpRules::default()));
    }
}
