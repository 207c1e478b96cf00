//! Where a request may go: public addresses on the web's own ports, and what the configuration names besides.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// The ports that need no exception.
const WEB: [u16; 2] = [80, 443];

/// A destination beyond public addresses on ports 80 and 443: `HOST`, `HOST:PORT`, `HOST:*`, `NETWORK/BITS:PORT`, `[V6]:PORT`.
///
/// Without a port it stands for 80 and 443, `*` for every port. A host name may lead to private and loopback addresses; link-local,
/// multicast and reserved ones need a network, the metadata services of clouds their own full address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    place: Place,
    ports: Ports,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// In lower case, without a final dot.
    Host(String),
    Network {
        base: IpAddr,
        bits: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ports {
    Web,
    One(u16),
    All,
}

/// Whether a request for `host` and `port` may be sent to `address`, which is what the host resolved to.
///
/// # Errors
/// Says what to add to the configuration, if anything.
pub(crate) fn check(exceptions: &[Exception], host: &str, address: IpAddr, port: u16) -> Result<(), String> {
    let address = plain(address);
    let metadata = is_metadata(address);
    let named_address = exceptions.iter().any(|exception| match exception.place {
        Place::Network { base, bits } => exception.ports.hold(port) && within(address, base, bits) && (!metadata || bits == full(base)),
        Place::Host(_) => false,
    });
    let named_host =
        exceptions.iter().any(|exception| matches!(&exception.place, Place::Host(name) if name == host) && exception.ports.hold(port));
    let what = if host.parse() == Ok(address) { host.to_owned() } else { format!("{host} ({address})") };
    let (allowed, why) = match class(address) {
        _ if named_address => return Ok(()),
        Class::Public => (WEB.contains(&port) || named_host, "port is neither 80 nor 443"),
        Class::Internal => (named_host, "address is not public"),
        Class::Never => (false, "address is link-local, reserved or a metadata service"),
    };
    match allowed {
        true => Ok(()),
        false if class(address) == Class::Never => Err(format!("{what} port {port} is refused: the {why}")),
        false => Err(format!("{what} port {port} is refused: the {why}. If that is meant, add {:?} to `egress`", suggestion(host, port))),
    }
}

/// A host of a URL as exceptions spell it.
pub(crate) fn host_key(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Public,
    /// Private or loopback: fine for those whom the configuration names.
    Internal,
    /// Never what a name should lead to.
    Never,
}

/// The special-purpose registries of IANA: RFC 6890 and its updates.
fn class(address: IpAddr) -> Class {
    if is_metadata(address) {
        return Class::Never;
    }
    let v4 = |base: [u8; 4], bits| within(address, Ipv4Addr::from(base).into(), bits);
    let v6 = |first: u16, second: u16, bits| within(address, Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0).into(), bits);
    match address {
        IpAddr::V4(_) => {
            let internal = [([10, 0, 0, 0], 8), ([172, 16, 0, 0], 12), ([192, 168, 0, 0], 16), ([100, 64, 0, 0], 10), ([127, 0, 0, 0], 8)];
            let never = [
                ([0, 0, 0, 0], 8),
                ([169, 254, 0, 0], 16),
                ([192, 0, 0, 0], 24),
                ([192, 0, 2, 0], 24),
                ([192, 88, 99, 0], 24),
                ([198, 18, 0, 0], 15),
                ([198, 51, 100, 0], 24),
                ([203, 0, 113, 0], 24),
                ([224, 0, 0, 0], 3),
            ];
            if internal.iter().any(|(base, bits)| v4(*base, *bits)) {
                Class::Internal
            } else if never.iter().any(|(base, bits)| v4(*base, *bits)) {
                Class::Never
            } else {
                Class::Public
            }
        }
        IpAddr::V6(ip) if ip.is_loopback() || v6(0xfc00, 0, 7) => Class::Internal,
        // Global unicast, less the parts for protocols, documentation and 6to4, which hides an IPv4 address.
        IpAddr::V6(_) if v6(0x2000, 0, 3) => {
            let special = v6(0x2001, 0, 23) || v6(0x2001, 0xdb8, 32) || v6(0x2002, 0, 16) || v6(0x3fff, 0, 20);
            if special { Class::Never } else { Class::Public }
        }
        IpAddr::V6(_) => Class::Never,
    }
}

/// Where clouds hand credentials to whoever asks from the machine.
fn is_metadata(address: IpAddr) -> bool {
    const V4: [Ipv4Addr; 5] = [
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::new(169, 254, 170, 2),
        Ipv4Addr::new(100, 100, 100, 200),
        Ipv4Addr::new(168, 63, 129, 16),
        Ipv4Addr::new(192, 0, 0, 192),
    ];
    const V6: [Ipv6Addr; 2] = [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];
    match address {
        IpAddr::V4(ip) => V4.contains(&ip),
        IpAddr::V6(ip) => V6.contains(&ip),
    }
}

/// The IPv4 address that an IPv6 one only wraps: mapped (RFC 4291) or translated by NAT64 (RFC 6052).
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if within(address, Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0).into(), 96) {
        let [.., a, b, c, d] = v6.octets();
        return Ipv4Addr::new(a, b, c, d).into();
    }
    address.to_canonical()
}

fn within(address: IpAddr, base: IpAddr, bits: u8) -> bool {
    // Both as 128 bits; families never mix.
    let (address, base, width) = match (address, base) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    let free = width - u32::from(bits);
    (address ^ base).checked_shr(free).unwrap_or(0) == 0
}

fn full(base: IpAddr) -> u8 {
    if base.is_ipv4() { 32 } else { 128 }
}

fn suggestion(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl Ports {
    fn hold(self, port: u16) -> bool {
        match self {
            Ports::Web => WEB.contains(&port),
            Ports::One(one) => one == port,
            Ports::All => true,
        }
    }
}

impl FromStr for Exception {
    type Err = String;

    fn from_str(text: &str) -> Result<Exception, String> {
        let wrong = |why: &str| format!("{text:?} is no destination: {why}; write HOST, HOST:PORT, HOST:*, 10.0.0.0/8:PORT or [::1]:PORT");
        let (place, port) = match (text.strip_prefix('['), text.parse::<IpAddr>()) {
            (Some(rest), _) => {
                let (inside, after) = rest.split_once(']').ok_or_else(|| wrong("`]` is missing"))?;
                // `[fd00::/8]:443` and `[::1]:80`.
                match after.strip_prefix(':') {
                    Some(port) => (inside, Some(port)),
                    None if after.is_empty() => (inside, None),
                    None => return Err(wrong("after `]` comes `:PORT` or nothing")),
                }
            }
            (None, Ok(IpAddr::V6(_))) => (text, None),
            (None, _) if text.matches(':').count() > 1 => (text, None),
            (None, _) => text.rsplit_once(':').map_or((text, None), |(place, port)| (place, Some(port))),
        };
        let ports = match port {
            None => Ports::Web,
            Some("*") => Ports::All,
            Some(port) => {
                Ports::One(port.parse().ok().filter(|port| *port > 0).ok_or_else(|| wrong("the port is not a number from 1 to 65535"))?)
            }
        };
        let (base, bits) = place.split_once('/').map_or((place, None), |(base, bits)| (base, Some(bits)));
        let place = match (base.parse::<IpAddr>(), bits) {
            (Ok(base), Some(_)) if plain(base) != base => return Err(wrong("an IPv4 network is written as such")),
            (Ok(base), bits) => {
                let base = plain(base);
                let bits = match bits {
                    None => full(base),
                    Some(bits) => {
                        bits.parse().ok().filter(|bits| *bits <= full(base)).ok_or_else(|| wrong("the prefix length is wrong"))?
                    }
                };
                Place::Network { base, bits }
            }
            (Err(_), Some(_)) => return Err(wrong("a network begins with an address")),
            (Err(_), None) => {
                let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
                if place.is_empty() || place.len() > 253 || place.starts_with(['-', '.']) || !place.chars().all(fits) {
                    return Err(wrong("the host name is none"));
                }
                Place::Host(host_key(place))
            }
        };
        Ok(Exception { place, ports })
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Host(name) => f.write_str(name)?,
            Place::Network { base: IpAddr::V4(base), bits } => write!(f, "{base}/{bits}")?,
            Place::Network { base, bits } => write!(f, "[{base}/{bits}]")?,
        }
        match self.ports {
            Ports::Web => Ok(()),
            Ports::One(port) => write!(f, ":{port}"),
            Ports::All => f.write_str(":*"),
        }
    }
}

impl<'de> Deserialize<'de> for Exception {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Exception, D::Error> {
        Cow::<'de, str>::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Exception {
    fn schema_name() -> Cow<'static, str> {
        "EgressException".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A destination beyond public addresses on ports 80 and 443.",
            "examples": ["grafana.internal:3000", "127.0.0.1:*", "10.0.0.0/8:443", "[::1]:8080"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(exceptions: &[&str], host: &str, address: &str, port: u16) -> bool {
        let exceptions: Vec<Exception> = exceptions.iter().map(|text| text.parse().unwrap()).collect();
        check(&exceptions, host, address.parse().unwrap(), port).is_ok()
    }

    #[test]
    fn without_exceptions_only_public_addresses_pass() {
        for address in ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1", "172.32.0.1", "100.128.0.1"] {
            assert!(allowed(&[], "example.com", address, 443), "{address}");
            assert!(!allowed(&[], "example.com", address, 8443), "{address}");
        }
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.1.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002:7f00:1::1",
            "3fff::1",
            "100::1",
            "5f00::1",
        ] {
            assert!(!allowed(&[], "example.com", address, 443), "{address}");
        }
    }

    #[test]
    fn a_named_host_reaches_inside_but_never_metadata() {
        let rules = ["grafana.internal:3000"];
        assert!(allowed(&rules, "grafana.internal", "10.0.0.5", 3000));
        assert!(allowed(&rules, "grafana.internal", "127.0.0.1", 3000));
        assert!(allowed(&rules, "grafana.internal", "1.1.1.1", 3000));
        assert!(!allowed(&rules, "grafana.internal", "10.0.0.5", 80));
        assert!(!allowed(&rules, "other.internal", "10.0.0.5", 3000));
        assert!(!allowed(&rules, "grafana.internal", "169.254.169.254", 3000));
        assert!(!allowed(&rules, "grafana.internal", "100.100.100.200", 3000));
        assert!(!allowed(&rules, "grafana.internal", "0.0.0.0", 3000));
    }

    #[test]
    fn a_named_network_is_taken_at_its_word_except_for_metadata() {
        assert!(allowed(&["10.0.0.0/8:443"], "evil.example", "10.9.9.9", 443));
        assert!(!allowed(&["10.0.0.0/8:443"], "evil.example", "10.9.9.9", 80));
        assert!(!allowed(&["10.0.0.0/8:443"], "evil.example", "11.9.9.9", 8080));
        assert!(allowed(&["127.0.0.1:*"], "127.0.0.1", "::ffff:127.0.0.1", 9999));
        assert!(!allowed(&["127.0.0.1"], "127.0.0.1", "127.0.0.1", 9999));
        assert!(allowed(&["[::1]:8080"], "::1", "::1", 8080));
        assert!(allowed(&["[fd00::/8]:*"], "db", "fd12::1", 5432));
        assert!(allowed(&["0.0.0.0/0:*"], "any", "192.168.0.1", 1));
        assert!(!allowed(&["0.0.0.0/0:*"], "any", "169.254.169.254", 80));
        assert!(allowed(&["169.254.169.254/32"], "169.254.169.254", "169.254.169.254", 80));
    }

    #[test]
    fn what_is_no_destination_is_refused_and_the_rest_keeps_its_text() {
        for text in [
            "",
            ":80",
            "a b",
            "host:0",
            "host:99999",
            "host:x",
            "10.0.0.0/33",
            "host/8",
            "[::1",
            "[::1]80",
            "-x",
            "http://x",
            "[::ffff:10.0.0.0/104]",
        ] {
            let error = text.parse::<Exception>().unwrap_err();
            assert!(error.contains("write HOST"), "{text}: {error}");
        }
        for (text, shown) in [
            ("Grafana.Internal.:3000", "grafana.internal:3000"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("::1", "[::1/128]"),
            ("[fd00::/8]:443", "[fd00::/8]:443"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
        ] {
            let exception: Exception = text.parse().unwrap();
            assert_eq!(exception.to_string(), shown);
            assert_eq!(shown.parse::<Exception>().unwrap(), exception);
        }
    }

    #[test]
    fn a_refusal_says_what_to_add() {
        let error = check(&[], "db.internal", "10.0.0.5".parse().unwrap(), 8080).unwrap_err();
        assert_eq!(
            error,
            "db.internal (10.0.0.5) port 8080 is refused: the address is not public. If that is meant, add \"db.internal:8080\" to `egress`"
        );
        let error = check(&[], "::1", "::1".parse().unwrap(), 80).unwrap_err();
        assert!(error.ends_with("add \"[::1]:80\" to `egress`"), "{error}");
    }
}
