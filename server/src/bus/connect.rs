//! Connections to NATS: who we are there, and what to do when it refuses us.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use async_nats::{Client, ClientError, ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerError};
use rustls::{AlertDescription, CertificateError};
use secrecy::ExposeSecret;

use crate::config::{NatsLink, Proof};

/// A server that does not answer within this time is away.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a connection is tried out: after three tries without an answer it is given up and made anew.
const PING: Duration = Duration::from_secs(5);

/// What NATS said when it refused to have us back; nothing while it is only away.
#[derive(Clone, Debug, Default)]
pub(super) struct Refused(Arc<Mutex<Option<String>>>);

impl Refused {
    pub(super) fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, what: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }
}

/// A fresh connection. It finds its way back by itself when the server was away.
///
/// # Errors
/// If the server cannot be reached, or refuses us: what to do.
pub(crate) async fn connect(settings: &NatsLink) -> anyhow::Result<Client> {
    connect_telling(settings, Refused::default()).await
}

/// The same; why it cannot come back later is told.
pub(super) async fn connect_telling(settings: &NatsLink, told: Refused) -> anyhow::Result<Client> {
    let mut options = ConnectOptions::new().name("watchkeeper").connection_timeout(PATIENCE).request_timeout(Some(PATIENCE));
    options = options.ping_interval(PING);
    options = options.reconnect_delay_callback(|attempt| Duration::from_millis(100 * u64::try_from(attempt.min(20)).unwrap_or(20)));
    told.set(None);
    let keys = settings.proof.keys();
    options = options.event_callback(move |event| {
        let told = told.clone();
        async move {
            let refused = ConnectErrorKind::AuthorizationViolation.to_string();
            match event {
                Event::Connected => told.set(None),
                Event::ServerError(ServerError::AuthorizationViolation) => told.set(Some(refusal(keys))),
                Event::ClientError(ClientError::Other(what)) if what == refused => told.set(Some(refusal(keys))),
                Event::ServerError(ServerError::Other(what)) if what.to_lowercase().contains("permissions violation") => {
                    tracing::warn!(what, "NATS does not let us: look at this user's permissions there");
                }
                _ => {}
            }
        }
    });
    options = proven(options, &settings.proof).await?;
    if let Some(inbox) = &settings.inbox {
        options = options.custom_inbox_prefix(inbox);
    }
    let tls = &settings.tls;
    for file in [&tls.ca_file, &tls.cert_file, &tls.key_file].into_iter().flatten() {
        read(file).await?;
    }
    if tls.is_wanted() {
        options = options.require_tls(true);
    }
    if let Some(file) = &tls.ca_file {
        options = options.add_root_certificates(file.clone());
    }
    if let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    options.connect(settings.urls.clone()).await.map_err(|error| explained(&error, settings))
}

async fn proven(options: ConnectOptions, proof: &Proof) -> anyhow::Result<ConnectOptions> {
    Ok(match proof {
        Proof::None => options,
        Proof::Credentials(file) => {
            let text = read(file).await?;
            let made = "it is what `nsc generate creds` writes: a user's JWT and its seed";
            options.credentials(&text).map_err(|error| anyhow!("`nats.credentials_file`: {}: {error}: {made}", file.display()))?
        }
        Proof::Nkey(file) => {
            let text = read(file).await?;
            let seed = text.lines().map(str::trim).find(|line| line.starts_with("SU"));
            let made = "it is what `nk -gen user` writes, one line that begins with SU";
            options.nkey(seed.with_context(|| format!("`nats.nkey_file`: {} holds no seed of a user: {made}", file.display()))?.to_owned())
        }
        Proof::User(user, password) => options.user_and_password(user.clone(), password.now().await?.expose_secret().to_owned()),
        Proof::Token(token) => options.token(token.now().await?.expose_secret().to_owned()),
    })
}

async fn read(file: &Path) -> anyhow::Result<String> {
    tokio::fs::read_to_string(file).await.with_context(|| format!("cannot read {}", file.display()))
}

fn refusal(keys: &str) -> String {
    format!("NATS refuses us (authorization violation): look at {keys}, and at the user and its permissions there")
}

/// What a failed connection means, and what to do about it.
fn explained(error: &ConnectError, settings: &NatsLink) -> anyhow::Error {
    let urls = settings.urls.join(", ");
    let why = match (error.kind(), tls_error(error)) {
        (ConnectErrorKind::AuthorizationViolation, _) => refusal(settings.proof.keys()),
        (ConnectErrorKind::Authentication, _) => format!("the seed cannot be used to sign: look at {}", settings.proof.keys()),
        (_, Some(tls)) => about_tls(tls, settings),
        (ConnectErrorKind::TimedOut, _) => "it does not answer in five seconds: look at the address and the network".to_owned(),
        (ConnectErrorKind::Tls, _) => format!("{}: look at the files of `nats.tls`", in_full(error)),
        _ => in_full(error),
    };
    anyhow!("cannot connect to {urls}: {why}")
}

fn about_tls(error: &rustls::Error, settings: &NatsLink) -> String {
    let known = if settings.tls.ca_file.is_some() { "`nats.tls.ca_file` is another one" } else { "name its file as `nats.tls.ca_file`" };
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!("the authority that signed its certificate is not known here: {known}")
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            "its certificate is for another name: write the name in `nats.url` that stands in the certificate".to_owned()
        }
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired: renew it on the NATS server, or set this host's clock".to_owned()
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure) => {
            "it asks for a certificate of ours: give `nats.tls.cert_file` and `key_file`".to_owned()
        }
        rustls::Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::UnsupportedCertificate,
        ) => "it does not take our certificate: `nats.tls.cert_file` must be signed by an authority that it trusts, for clients".to_owned(),
        rustls::Error::InvalidMessage(_) => "it speaks no TLS: write nats:// and leave out `nats.tls`, or turn TLS on there".to_owned(),
        other => format!("TLS: {other}"),
    }
}

/// The TLS error below a failed connection.
fn tls_error<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        // What stands in an io::Error is not its source but the error itself.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Some(tls);
        }
        next = error.source();
    }
    None
}

fn in_full(error: &ConnectError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = error.source();
    }
    text
}
