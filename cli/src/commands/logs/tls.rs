//! HTTPS to an agent: with the certificates that lead to etcd, and errors that say which of them is wrong.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use setpoint_store::etcd::{Pem, TlsOptions};

/// How long an agent may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A client for one agent's endpoint. `tls` is what leads to etcd; it matters for `https` alone.
///
/// # Errors
/// When certificates are needed and there are none, or they cannot be read.
pub(super) fn client(endpoint: &str, tls: Option<&TlsOptions>) -> Result<reqwest::Client> {
    // Fails when one is installed already, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_LIMIT)
        .user_agent(concat!("setpoint/", env!("CARGO_PKG_VERSION")));
    if endpoint.starts_with("https://") {
        let tls = tls.with_context(|| {
            format!(
                "the agent at {endpoint} wants a certificate: give --cacert, --cert and --key, or a context that has them"
            )
        })?;
        builder = builder.tls_backend_preconfigured(config(tls)?);
    }
    builder.build().context("setting up the HTTP client")
}

fn config(tls: &TlsOptions) -> Result<ClientConfig> {
    let mut authorities = RootCertStore::empty();
    for certificate in certificates(&tls.ca).context("reading the CA certificate")? {
        authorities
            .add(certificate)
            .context("taking up the CA certificate")?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("setting up TLS")?
        .with_root_certificates(authorities);
    let Some((certificate, key)) = &tls.client else {
        return Ok(config.with_no_client_auth());
    };
    let chain = certificates(certificate).context("reading the client certificate")?;
    let key = match key {
        Pem::File(path) => PrivateKeyDer::from_pem_file(path).with_context(|| named(path)),
        Pem::Text(text) => PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(Into::into),
    }
    .context("reading the key of the client certificate")?;
    config
        .with_client_auth_cert(chain, key)
        .context("taking up the client certificate")
}

fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>> {
    match pem {
        Pem::File(path) => CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .with_context(|| named(path)),
        Pem::Text(text) => CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(Into::into),
    }
}

fn named(path: &Path) -> String {
    path.display().to_string()
}

/// What went wrong with a request to an agent, in words that tell what to do.
pub(super) fn explain(
    error: reqwest::Error,
    endpoint: &str,
    has_certificate: bool,
) -> anyhow::Error {
    let words = match tls_cause(&error) {
        Some(rustls::Error::InvalidCertificate(problem)) => match problem {
            // An authority that was made anew under its former name gives bad signatures.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                "the certificate of the agent at {endpoint} is not signed by the CA that is trusted here (--cacert, or caFile of the context)"
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!(
                    "the certificate of the agent at {endpoint} is for another name: it must bear this address, or --address of the agent a name that it bears"
                )
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                format!(
                    "the certificate of the agent at {endpoint} is one of clients only: its extended key usage has to allow servers (--tls-cert there)"
                )
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("the certificate of the agent at {endpoint} has expired")
            }
            _ => format!("the certificate of the agent at {endpoint} cannot be trusted"),
        },
        Some(rustls::Error::AlertReceived(alert)) => match (alert, has_certificate) {
            (AlertDescription::CertificateRequired, _) | (_, false) => format!(
                "the agent at {endpoint} lets nobody in without a client certificate: give --cert and --key, or a context that has them"
            ),
            (_, true) => format!(
                "the agent at {endpoint} refuses this client certificate: its client CA (--tls-client-ca there) has not signed it, or it has expired"
            ),
        },
        Some(_) => format!("the agent at {endpoint} does not speak TLS as it should"),
        None if refused(&error) => format!(
            "nobody listens at {endpoint}: the agent there does not run, or listens elsewhere by now (--listen)"
        ),
        None => format!("asking the agent at {endpoint}"),
    };
    anyhow!(error).context(words)
}

/// The TLS error behind another one.
fn tls_cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    causes(error).find_map(|e| e.downcast_ref())
}

fn refused(error: &(dyn Error + 'static)) -> bool {
    causes(error)
        .filter_map(|e| e.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// An error and what is behind it.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| cause(*error))
}

fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    // What an `io::Error` wraps is not among its sources.
    let wrapped = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref);
    match wrapped {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}
