//! `server`: where to listen, and what protects the way there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use domain::duration::Dur;
use domain::rules::tree::Node;
use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;

use super::part::Sections;

/// Where it listens if nothing else is said: this machine only.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9095);

/// Where to listen and who may be in between.
#[derive(Clone, Debug)]
pub(crate) struct ServerConfig {
    /// Address and port.
    pub(crate) listen: SocketAddr,
    /// Where people reach it, without a slash at the end.
    pub(crate) public_url: String,
    /// Certificate and key, if it speaks TLS itself.
    pub(crate) tls: Option<TlsConfig>,
    /// Proxies in front: where some are named, nobody but they and this machine may connect.
    pub(crate) trusted_proxy: Vec<Network>,
    /// The name of this instance, the same after a restart; without it the host's name will do.
    pub(crate) name: Option<String>,
    /// How long connections are still taken after the word to stop, if that is said.
    pub(crate) drain: Option<std::time::Duration>,
}

/// PEM files; read again when they change.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsConfig {
    /// The certificate chain, the server's own first.
    pub(crate) cert_file: PathBuf,
    /// Its key.
    pub(crate) key_file: PathBuf,
}

/// An address, or a network such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    base: IpAddr,
    bits: u32,
}

/// Where to listen, and what protects the way there.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    /// ADDRESS:PORT. Default 127.0.0.1:9095: this machine only.
    #[serde(default)]
    listen: Option<String>,
    /// Where people reach it; links on cards begin with this.
    #[serde(default)]
    public_url: Option<String>,
    /// Speak TLS with these files.
    #[serde(default)]
    tls: Option<TlsConfig>,
    /// Addresses or networks of the proxies in front, which speak TLS for us. Nobody else but this machine may connect then.
    #[serde(default)]
    trusted_proxy: Vec<String>,
    /// Listen beyond this machine without either: only where the network itself is trusted.
    #[serde(default)]
    insecure: bool,
    /// The name of this instance among several; it must be the same after a restart. Default: the host's name.
    #[serde(default)]
    name: Option<String>,
    /// How long connections are still taken after the word to stop, while `/readyz` says no: as long as whoever spreads the load needs to see
    /// that. At most 15s. Default 3s on PostgreSQL, where others can take over, and 0s on SQLite.
    #[serde(default)]
    drain: Option<Dur>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self { listen: LISTEN, public_url: format!("http://{LISTEN}"), tls: None, trusted_proxy: Vec::new(), name: None, drain: None }
    }
}

impl ServerConfig {
    pub(super) fn read(cx: &mut Sections<'_, '_, '_>) -> Self {
        let Some((node, written)) = cx.value::<Written>("server") else { return Self::default() };
        let listen = written.listen.as_deref().map_or(LISTEN, |text| {
            text.parse().unwrap_or_else(|_| {
                let help = "write ADDRESS:PORT, such as 127.0.0.1:9095, 0.0.0.0:9095 or '[::1]:9095'".to_owned();
                cx.report().add(node.find(&["listen"]).at, format!("{text:?} is no address to listen on"), help);
                LISTEN
            })
        });
        let trusted_proxy = networks(cx, &node, &written.trusted_proxy);
        let open = !listen.ip().is_loopback();
        if open && written.tls.is_none() && written.trusted_proxy.is_empty() && !written.insecure {
            let help = "give `tls: { cert_file: .., key_file: .. }`, or name the proxy in front: `trusted_proxy: [ADDRESS]`, or, where the \
                        network itself is trusted, write `insecure: true`";
            let message = format!("listening on {listen} would let secrets and sessions travel in the clear");
            cx.report().add(node.find(&["listen"]).at, message, help.to_owned());
        }
        let scheme = if written.tls.is_some() { "https" } else { "http" };
        let public_url = match &written.public_url {
            Some(url) => {
                web_url(cx, &node, "public_url", url);
                url.trim_end_matches('/').to_owned()
            }
            None => format!("{scheme}://{listen}"),
        };
        let base = cx.base;
        let tls = written.tls.map(|tls| TlsConfig { cert_file: base.join(tls.cert_file), key_file: base.join(tls.key_file) });
        if written.drain.is_some_and(|drain| drain > Dur::from_secs(15)) {
            let help = "a stop has 20s in all, and what is at hand needs its part".to_owned();
            cx.report().add(node.find(&["drain"]).at, "`drain` is longer than 15s", help);
        }
        let drain = written.drain.map(|drain| drain.as_std());
        Self { listen, public_url, tls, trusted_proxy, name: written.name.filter(|name| !name.trim().is_empty()), drain }
    }

    /// Whether people reach it by HTTPS.
    pub(crate) fn https(&self) -> bool {
        self.public_url.starts_with("https://")
    }
}

/// Tells what is no HTTP address.
pub(super) fn web_url(cx: &mut Sections<'_, '_, '_>, node: &Node, key: &str, text: &str) {
    let good = Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if !good {
        // Not repeated: it may hold a token.
        let help = "begin with https:// or http://".to_owned();
        cx.report().add(node.find(&[key]).at, format!("`{key}` is no HTTP address"), help);
    }
}

fn networks(cx: &mut Sections<'_, '_, '_>, node: &Node, written: &[String]) -> Vec<Network> {
    let mut all = Vec::new();
    for (index, text) in written.iter().enumerate() {
        match Network::parse(text) {
            Some(network) => all.push(network),
            None => {
                let at = node.find(&["trusted_proxy", &index.to_string()]).at;
                let help = "write an address such as 10.0.0.5, or a network such as 10.0.0.0/8".to_owned();
                cx.report().add(at, format!("{text:?} is neither an address nor a network"), help);
            }
        }
    }
    all
}

impl Network {
    /// Reads `ADDRESS` or `ADDRESS/BITS`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (base, bits) = match text.split_once('/') {
            Some((base, bits)) => (base.parse().ok()?, Some(bits.parse().ok()?)),
            None => (text.parse().ok()?, None),
        };
        let most = match base {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        let bits = bits.unwrap_or(most);
        // Zero bits would trust the whole world.
        (1..=most).contains(&bits).then_some(Self { base, bits })
    }

    /// Whether an address belongs to it. An IPv4 address that came in over IPv6 is the IPv4 address.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => (u32::from(base) ^ u32::from(address)).checked_shr(32 - self.bits).unwrap_or(0) == 0,
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                (u128::from(base) ^ u128::from(address)).checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        for (network, address, holds) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.5", "10.0.0.5", true),
            ("10.0.0.5", "10.0.0.4", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe80::1", false),
            ("10.0.0.0/8", "fd12::1", false),
        ] {
            assert_eq!(Network::parse(network).unwrap().contains(address.parse().unwrap()), holds, "{network} {address}");
        }
        for text in ["", "0.0.0.0/0", "10.0.0.0/33", "example.com", "10.0.0.0/x", "::/129"] {
            assert!(Network::parse(text).is_none(), "{text}");
        }
    }
}
