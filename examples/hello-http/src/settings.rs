//! What the pod was given, and how a page shows it.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::{fs, io};

/// Everything that comes from outside.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `$POD_IP`, else `$ADDR`, else 127.0.0.1; and `$PORT`, else 8080.
    pub(crate) listen: SocketAddr,
    /// `$POD_NAME`.
    pub(crate) pod: String,
    /// `$NODE_NAME`.
    pub(crate) node: String,
    /// `$GREETING`.
    pub(crate) greeting: String,
    /// `$TOKEN`, as length and fingerprint.
    pub(crate) secret: Option<Secret>,
    /// `$MESSAGE_FILE`: read anew for each page.
    pub(crate) message_file: Option<PathBuf>,
}

/// What may be said of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Secret {
    length: usize,
    fingerprint: String,
}

impl Settings {
    /// Reads the settings through `var`.
    ///
    /// # Errors
    /// An address or a port that is none.
    pub(crate) fn from_env(var: impl Fn(&str) -> Option<String>) -> io::Result<Self> {
        let given = |name: &str| var(name).filter(|v| !v.is_empty());
        let address = match given("POD_IP").or_else(|| given("ADDR")) {
            Some(text) => text
                .parse()
                .map_err(|_| invalid(format!("{text:?} is not an IP address")))?,
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let port = match given("PORT") {
            Some(text) => text
                .parse()
                .map_err(|_| invalid(format!("PORT is {text:?}, which is not a port")))?,
            None => 8080,
        };
        let or_unknown = |name: &str| given(name).unwrap_or_else(|| "unknown".to_owned());
        Ok(Self {
            listen: SocketAddr::new(address, port),
            pod: or_unknown("POD_NAME"),
            node: or_unknown("NODE_NAME"),
            greeting: given("GREETING").unwrap_or_else(|| "Hello".to_owned()),
            secret: given("TOKEN").map(|t| Secret {
                length: t.len(),
                fingerprint: fingerprint(t.as_bytes()),
            }),
            message_file: given("MESSAGE_FILE").map(PathBuf::from),
        })
    }

    /// The page: one `name: value` per line.
    pub(crate) fn page(&self) -> String {
        let mut page = String::new();
        let mut line = |name: &str, value: &str| {
            // Writing into a String cannot fail.
            writeln!(page, "{name}: {value}").ok();
        };
        line("greeting", &self.greeting);
        line("pod", &self.pod);
        line("node", &self.node);
        match &self.secret {
            Some(s) => line(
                "secret",
                &format!("{} bytes, fingerprint {}", s.length, s.fingerprint),
            ),
            None => line("secret", "none"),
        }
        match self.message_file.as_ref().map(fs::read_to_string) {
            Some(Ok(text)) => line("message", text.trim_end()),
            Some(Err(error)) => line("message", &format!("unreadable ({error})")),
            None => line("message", "none"),
        }
        page
    }
}

/// 32 bits of FNV-1a: enough to see that the right value arrived, too little to tell what it is. Not for real secrets of
/// low entropy, which can be guessed from it.
pub(crate) fn fingerprint(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    format!("{hash:08x}")
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_shows_what_arrived_and_never_the_secret() {
        let settings = Settings::from_env(|name| {
            Some(match name {
                "POD_NAME" => "hello-1".to_owned(),
                "GREETING" => "Good morning".to_owned(),
                "TOKEN" => "s3cret".to_owned(),
                _ => return None,
            })
        })
        .unwrap();
        let page = settings.page();
        assert_eq!(
            page,
            format!(
                "greeting: Good morning\npod: hello-1\nnode: unknown\nsecret: 6 bytes, fingerprint {}\nmessage: none\n",
                fingerprint(b"s3cret")
            )
        );
    }

    #[test]
    fn the_pod_address_wins_over_addr_and_empty_means_unset() {
        let listen = |pod: &'static str| {
            Settings::from_env(|name| match name {
                "POD_IP" => Some(pod.to_owned()),
                "ADDR" => Some("127.0.0.2".to_owned()),
                "PORT" => Some("9000".to_owned()),
                _ => None,
            })
            .unwrap()
            .listen
            .to_string()
        };
        assert_eq!(listen("127.10.1.2"), "127.10.1.2:9000");
        assert_eq!(listen(""), "127.0.0.2:9000");
    }

    #[test]
    fn a_bad_port_is_named() {
        let error =
            Settings::from_env(|name| (name == "PORT").then(|| "http".to_owned())).unwrap_err();
        assert_eq!(error.to_string(), "PORT is \"http\", which is not a port");
    }

    #[test]
    fn fingerprints_are_fnv_1a() {
        assert_eq!(fingerprint(b""), "811c9dc5");
        assert_eq!(fingerprint(b"foobar"), "bf9cf968");
    }
}
