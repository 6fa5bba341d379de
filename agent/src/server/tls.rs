//! Mutual TLS for the agent's endpoint: who may connect is decided by the client CA, before anything is asked.
//!
//! Every certificate that the CA has signed may read every log of the node. There are no finer rights: a CA for etcd's
//! clients, where its certificates also serve others, should not be the one that is named here.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

/// How long a client may take to show its certificate.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long a client that was refused may take to read why.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);
/// Handshakes at a time; further connections wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 64;

/// The files that an endpoint with TLS is set up from. They are read once, when it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, with those between it and the CA, as PEM.
    pub certificate: PathBuf,
    /// Its key, as PEM.
    pub key: PathBuf,
    /// The authorities whose client certificates are let in, as PEM.
    pub client_ca: PathBuf,
}

/// Certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds nothing of the kind.
    #[error("the {what} {} cannot be read as PEM", path.display())]
    Pem {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// There is no certificate in the file.
    #[error("the {what} {} holds no certificate", path.display())]
    Empty {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A certificate, or a certificate and a key, that do not work.
    #[error("the {what} {} cannot be used", path.display())]
    Unusable {
        /// What it is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`], which names the file.
    pub(super) fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let unusable = |what, path: &Path| {
            let path = path.to_owned();
            move |source: Box<dyn std::error::Error + Send + Sync>| TlsError::Unusable {
                what,
                path,
                source,
            }
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut authorities = RootCertStore::empty();
        for certificate in certificates("client CA", &self.client_ca)? {
            authorities
                .add(certificate)
                .map_err(|e| unusable("client CA", &self.client_ca)(e.into()))?;
        }
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider.clone())
                .build()
                .map_err(|e| unusable("client CA", &self.client_ca)(e.into()))?;
        let chain = certificates("server certificate", &self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|source| TlsError::Pem {
            what: "server key",
            path: self.key.clone(),
            source,
        })?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| unusable("server certificate", &self.certificate)(e.into()))?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .map_err(|e| unusable("server certificate", &self.certificate)(e.into()))?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| TlsError::Pem {
            what,
            path: path.to_owned(),
            source,
        })?;
    if found.is_empty() {
        return Err(TlsError::Empty {
            what,
            path: path.to_owned(),
        });
    }
    Ok(found)
}

/// Gives out connections whose client has shown a certificate of the CA. One that is slow to do so holds up nobody.
pub(super) struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
    handshakes: FuturesUnordered<BoxFuture<'static, Option<Accepted>>>,
}

type Accepted = (TlsStream<TcpStream>, SocketAddr);

impl TlsListener {
    pub(super) fn new(tcp: TcpListener, acceptor: TlsAcceptor) -> Self {
        Self {
            tcp,
            acceptor,
            handshakes: FuturesUnordered::new(),
        }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    /// Cancel safe: handshakes are kept across calls.
    async fn accept(&mut self) -> Accepted {
        loop {
            tokio::select! {
                biased;
                Some(done) = self.handshakes.next(), if !self.handshakes.is_empty() => {
                    if let Some(accepted) = done {
                        return accepted;
                    }
                }
                (stream, peer) = Listener::accept(&mut self.tcp), if self.handshakes.len() < MAX_HANDSHAKES => {
                    self.handshakes.push(Box::pin(handshake(self.acceptor.clone(), stream, peer)));
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

async fn handshake(acceptor: TlsAcceptor, stream: TcpStream, peer: SocketAddr) -> Option<Accepted> {
    let shaken = tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream).into_fallible());
    match shaken.await {
        Ok(Ok(stream)) => Some((stream, peer)),
        Ok(Err((error, stream))) => {
            debug!(%peer, %error, "a client was not let in");
            let _ = tokio::time::timeout(FAREWELL_LIMIT, farewell(stream)).await;
            None
        }
        Err(_) => {
            debug!(%peer, "a client took too long to show its certificate");
            None
        }
    }
}

/// Closing a connection on which something is left to read makes the kernel reset it, and the alert that says why the
/// client is refused may be lost.
async fn farewell(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    let mut rest = [0; 1024];
    while matches!(stream.read(&mut rest).await, Ok(n) if n > 0) {}
}
