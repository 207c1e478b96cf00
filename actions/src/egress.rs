//! The one way out by HTTP for remedies and checks, safe against requests forged through names, redirects and proxies (SSRF).
//!
//! A name is resolved once, every address that it has is checked, and the connection goes to those addresses and no other, so a second
//! answer of the name server changes nothing. No redirects, no proxy from the environment, no repeats, bounded answers.

mod allow;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::HeaderMap;
use reqwest::{Method, Url, redirect, retry};
use tokio::time::timeout;

pub use allow::Exception;

/// The most of a body that is read.
pub const MAX_BODY: usize = 1024 * 1024;
/// The time for a whole exchange where nothing else is said.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// For names and connections, which fail sooner or not at all.
const CONNECT: Duration = Duration::from_secs(5);
/// A name with more addresses than this is none that anybody means.
const MAX_ADDRESSES: usize = 32;

/// Sends requests where the configuration allows them to go.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    exceptions: Vec<Exception>,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// As the server sees it.
    pub method: Method,
    /// `http` or `https`, without credentials.
    pub url: Url,
    /// Besides what HTTP itself needs.
    pub headers: HeaderMap,
    /// Empty for none.
    pub body: Vec<u8>,
    /// For everything from the name to the last byte.
    pub timeout: Duration,
}

/// An answer, of whatever status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// As sent. Untrusted.
    pub headers: HeaderMap,
    /// At most [`MAX_BODY`] bytes. Untrusted.
    pub body: Vec<u8>,
    /// Whether there was more.
    pub cut: bool,
    /// From the start to the last byte read.
    pub took: Duration,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// It may not go there.
    #[error("{0}")]
    Refused(String),
    /// Nothing of the request was sent.
    #[error("{0}")]
    NotSent(String),
    /// It was sent, or part of it, and no whole answer came: the other side may have acted on it.
    #[error("{0}")]
    Broken(String),
}

impl Egress {
    /// With these exceptions to "public addresses, ports 80 and 443".
    pub fn new(exceptions: Vec<Exception>) -> Egress {
        Egress { exceptions }
    }

    /// Sends it, once, and reads the answer.
    ///
    /// # Errors
    /// See [`EgressError`].
    pub async fn send(&self, request: Request) -> Result<Answer, EgressError> {
        let began = Instant::now();
        let addresses = timeout(request.timeout.min(CONNECT), self.resolve(&request.url))
            .await
            .unwrap_or_else(|_| Err(EgressError::NotSent(format!("the name of {} does not resolve in time", shown(&request.url)))))?;
        let left = request.timeout.saturating_sub(began.elapsed());
        let client = client(&request.url, addresses, left)?;
        let place = shown(&request.url);
        let sent = client.request(request.method, request.url).headers(request.headers).body(request.body).send().await;
        let mut response = sent.map_err(|error| {
            let problem = format!("{place}: {}", causes(&error));
            if error.is_connect() || error.is_builder() { EgressError::NotSent(problem) } else { EgressError::Broken(problem) }
        })?;
        let (status, headers) = (response.status().as_u16(), std::mem::take(response.headers_mut()));
        let (mut body, mut cut) = (vec![], false);
        while let Some(chunk) = response.chunk().await.map_err(|error| EgressError::Broken(format!("{place}: {}", causes(&error))))? {
            let room = MAX_BODY - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() > room {
                cut = true;
                break;
            }
        }
        Ok(Answer { status, headers, body, cut, took: began.elapsed() })
    }

    /// The addresses of the URL's host, all of them allowed.
    async fn resolve(&self, url: &Url) -> Result<Vec<SocketAddr>, EgressError> {
        let (host, port) = destination(url).map_err(EgressError::Refused)?;
        let found = tokio::net::lookup_host((host.as_str(), port)).await;
        let found = found.map_err(|error| EgressError::NotSent(format!("{}: {host} does not resolve: {error}", shown(url))))?;
        let addresses: Vec<SocketAddr> = found.take(MAX_ADDRESSES).collect();
        for address in &addresses {
            // One bad address refuses the name: a client that skips it would still tell which addresses exist.
            allow::check(&self.exceptions, &host, address.ip(), port).map_err(EgressError::Refused)?;
        }
        match addresses.is_empty() {
            true => Err(EgressError::NotSent(format!("{host} has no address"))),
            false => Ok(addresses),
        }
    }
}

/// Reads a URL that a request may use.
///
/// # Errors
/// Says what is wrong with it.
pub fn parse_url(text: &str) -> Result<Url, String> {
    if text.len() > 4096 {
        return Err("the URL is longer than 4096 bytes".to_owned());
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        // The standard has parsers drop some of these in silence.
        return Err("the URL holds white space or control characters".to_owned());
    }
    let url = Url::parse(text).map_err(|error| format!("{text:?} is not a URL: {error}"))?;
    destination(&url)?;
    Ok(url)
}

fn destination(url: &Url) -> Result<(String, u16), String> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{} URLs are refused: use http or https", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL with credentials is refused: it would be stored and shown".to_owned());
    }
    match (url.host_str(), url.port_or_known_default()) {
        (Some(host), Some(port)) => Ok((allow::host_key(host), port)),
        _ => Err("the URL names no host".to_owned()),
    }
}

/// One client per request, because it is bound to the addresses that were checked for it. It keeps no connection.
fn client(url: &Url, addresses: Vec<SocketAddr>, left: Duration) -> Result<reqwest::Client, EgressError> {
    #[expect(clippy::disallowed_methods, reason = "the one home of outgoing HTTP in this crate")]
    let builder = reqwest::Client::builder();
    let mut builder = builder
        .no_proxy()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .http1_only()
        .pool_max_idle_per_host(0)
        .user_agent(concat!("watchkeeper/", env!("CARGO_PKG_VERSION")))
        .timeout(left)
        // Less than the whole, so that the two can be told apart: a connection, TLS included, comes before anything is sent.
        .connect_timeout((left / 2).min(CONNECT))
        .dns_resolver(Checked(addresses));
    if url.scheme() == "http" {
        // Without this the system's certificates are loaded for nothing, and a machine that has none could not even check its own services.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| EgressError::NotSent(format!("no HTTP client: {}", causes(&error))))
}

/// Answers every question with the addresses that were checked. Addresses written in the URL itself were checked just so.
struct Checked(Vec<SocketAddr>);

impl Resolve for Checked {
    fn resolve(&self, _: Name) -> Resolving {
        let addresses: Addrs = Box::new(self.0.clone().into_iter());
        Box::pin(std::future::ready(Ok(addresses)))
    }
}

/// Where it goes, without path and query, which may hold secrets.
fn shown(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// The error with its causes, without the URL.
fn causes(error: &reqwest::Error) -> String {
    let mut text = match (error.is_timeout(), error.is_connect()) {
        (true, true) => "cannot connect in time".to_owned(),
        (true, false) => "no whole answer in time".to_owned(),
        (false, true) => "cannot connect".to_owned(),
        (false, false) => "the exchange broke".to_owned(),
    };
    let mut source = std::error::Error::source(error);
    let mut last = String::new();
    while let Some(cause) = source {
        last = cause.to_string();
        source = cause.source();
    }
    if !last.is_empty() && !error.is_timeout() {
        text.push_str(": ");
        text.push_str(&last);
    }
    text
}
