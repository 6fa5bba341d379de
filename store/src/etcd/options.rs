//! How to reach etcd.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::error::StoreError;

/// How to reach etcd, and how patient to be.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// `http://127.0.0.1:2379`, `https://etcd-1:2379`, or `host:port` (https when `tls` is given). They are members of
    /// one cluster; the first that works is used, the next when it fails.
    pub endpoints: Vec<String>,
    /// Certificates. `None` for plain text.
    pub tls: Option<TlsOptions>,
    /// A user with a password. A client certificate is better: passwords cost the server 70 ms each time.
    pub user: Option<Credentials>,
    /// How long a connection may take. Keep it below `request_timeout`, so that what was not sent is known not to be.
    pub connect_timeout: Duration,
    /// How long a request may take, over all attempts.
    pub request_timeout: Duration,
    /// How often a connection in use is pinged. etcd hangs up on those that ping more than every 5 s (by default).
    pub keep_alive_interval: Duration,
    /// How long a ping may stay unanswered.
    pub keep_alive_timeout: Duration,
    /// The largest message that is sent or received, in bytes.
    pub max_message_bytes: usize,
    /// How often an idle watch asks for progress; at least twice within `watch_silence_limit`.
    pub watch_progress_interval: Duration,
    /// A watch that hears nothing for so long, not even progress, is over.
    pub watch_silence_limit: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            endpoints: vec!["http://127.0.0.1:2379".to_owned()],
            tls: None,
            user: None,
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
            keep_alive_interval: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(5),
            max_message_bytes: 256 << 20,
            watch_progress_interval: Duration::from_secs(5),
            watch_silence_limit: Duration::from_secs(10),
        }
    }
}

impl ConnectOptions {
    /// The defaults for these endpoints.
    pub fn new<S: Into<String>>(endpoints: impl IntoIterator<Item = S>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// The endpoints in the form that the transport takes.
    pub(super) fn build(&self) -> Result<Vec<(String, Endpoint)>, StoreError> {
        if self.endpoints.is_empty() {
            return Err(invalid("no etcd endpoint is given"));
        }
        let tls = self.tls.as_ref().map(TlsOptions::load).transpose()?;
        self.endpoints
            .iter()
            .map(|url| self.endpoint(url.trim(), tls.as_ref()))
            .collect()
    }

    fn endpoint(
        &self,
        given: &str,
        tls: Option<&ClientTlsConfig>,
    ) -> Result<(String, Endpoint), StoreError> {
        let given = given.trim_end_matches('/');
        let url = match given.split_once("://") {
            Some(("http", _)) if tls.is_some() => {
                return Err(invalid(format!(
                    "endpoint {given}: certificates are given, so it must be an https:// endpoint"
                )));
            }
            Some(("http" | "https", _)) => given.to_owned(),
            Some((scheme, _)) => {
                return Err(invalid(format!(
                    "endpoint {given}: {scheme}:// is not supported, use http:// or https://"
                )));
            }
            None if tls.is_some() => format!("https://{given}"),
            None => format!("http://{given}"),
        };
        let mut endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| invalid(format!("endpoint {given}: {error}")))?;
        if url.starts_with("https://") {
            let tls = tls.ok_or_else(|| {
                invalid(format!(
                    "endpoint {given}: an https:// endpoint needs the CA certificate (--cacert)"
                ))
            })?;
            endpoint = endpoint
                .tls_config(tls.clone())
                .map_err(|error| invalid(format!("endpoint {given}: {}", innermost(&error))))?;
        }
        let endpoint = endpoint
            .connect_timeout(self.connect_timeout)
            .http2_keep_alive_interval(self.keep_alive_interval)
            .keep_alive_timeout(self.keep_alive_timeout)
            // etcd does not permit pings on a connection without streams.
            .keep_alive_while_idle(false)
            .tcp_nodelay(true)
            // Catching up over big values should not wait for window updates.
            .initial_stream_window_size(8 << 20)
            .initial_connection_window_size(16 << 20)
            .user_agent(concat!("setpoint/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| invalid(format!("endpoint {given}: {error}")))?;
        Ok((url, endpoint))
    }
}

/// A user and its password.
#[derive(Clone)]
pub struct Credentials {
    /// The user.
    pub name: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The certificates of a connection.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// Whose signature on the server's certificate is trusted.
    pub ca: Pem,
    /// The client's certificate and key.
    pub client: Option<(Pem, Pem)>,
    /// The name that the server's certificate must bear, when it is not the endpoint's host.
    pub server_name: Option<String>,
}

impl TlsOptions {
    fn load(&self) -> Result<ClientTlsConfig, StoreError> {
        let mut config = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.ca.load("CA certificate")?));
        if let Some((certificate, key)) = &self.client {
            config = config.identity(Identity::from_pem(
                certificate.load("client certificate")?,
                key.load("client key")?,
            ));
        }
        if let Some(name) = &self.server_name {
            config = config.domain_name(name);
        }
        Ok(config)
    }
}

/// PEM text, or where to find it.
#[derive(Clone)]
pub enum Pem {
    /// A file. It is read when the connection is made.
    File(PathBuf),
    /// The text itself.
    Text(String),
}

impl Pem {
    fn load(&self, what: &str) -> Result<String, StoreError> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    invalid(format!(
                        "the {what} {} cannot be read: {error}",
                        path.display()
                    ))
                })?;
                if text.contains("-----BEGIN ") {
                    Ok(text)
                } else {
                    Err(invalid(format!(
                        "the {what} {} is not in PEM format",
                        path.display()
                    )))
                }
            }
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Text(_) => f.write_str("Text(..)"),
        }
    }
}

fn invalid(message: impl Into<String>) -> StoreError {
    StoreError::Invalid {
        context: "connecting to etcd".to_owned(),
        message: message.into(),
    }
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(options: &ConnectOptions) -> Result<Vec<String>, String> {
        options
            .build()
            .map(|list| list.into_iter().map(|(name, _)| name).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn endpoints_get_their_scheme_from_the_certificates() {
        assert_eq!(
            names(&ConnectOptions::new(["a:1", "http://b:2/"])).unwrap(),
            ["http://a:1", "http://b:2"]
        );
    }

    #[test]
    fn contradictions_are_named() {
        let tls = TlsOptions {
            ca: Pem::Text(String::new()),
            client: None,
            server_name: None,
        };
        let secure = ConnectOptions {
            tls: Some(tls),
            ..ConnectOptions::new(["http://a:1"])
        };
        assert!(
            names(&secure)
                .unwrap_err()
                .contains("must be an https:// endpoint")
        );
        assert!(
            names(&ConnectOptions::new(["https://a:1"]))
                .unwrap_err()
                .contains("needs the CA certificate")
        );
        assert!(
            names(&ConnectOptions::new(["unix://a"]))
                .unwrap_err()
                .contains("unix:// is not supported")
        );
        assert!(
            names(&ConnectOptions::new(Vec::<String>::new()))
                .unwrap_err()
                .contains("no etcd endpoint")
        );
    }

    #[test]
    fn secrets_are_not_printed() {
        let options = ConnectOptions {
            user: Some(Credentials {
                name: "root".into(),
                password: "hunter2".into(),
            }),
            ..ConnectOptions::default()
        };
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
