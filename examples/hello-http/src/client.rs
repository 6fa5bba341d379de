//! The client: one GET over plain HTTP/1.1.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// For the connection, and for each read and write.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Fetches `url` and gives back the body.
///
/// # Errors
/// The URL is not plain `http://`, the server does not answer, or its status is not 2xx.
pub(crate) fn get(url: &str) -> io::Result<String> {
    let (host, path) = split(url)?;
    let address = host
        .to_socket_addrs()
        .map_err(|e| io::Error::new(e.kind(), format!("{host}: {e}")))?
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address")))?;
    let mut connection = TcpStream::connect_timeout(&address, TIMEOUT)
        .map_err(|e| io::Error::new(e.kind(), format!("cannot connect to {address}: {e}")))?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    connection.set_write_timeout(Some(TIMEOUT))?;
    write!(
        connection,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    body_of(&answer).map(str::to_owned)
}

/// Splits a URL into `host:port` and path.
fn split(url: &str) -> io::Result<(String, &str)> {
    let invalid = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{url:?} is not a plain http:// URL"),
        )
    };
    let rest = url.strip_prefix("http://").ok_or_else(invalid)?;
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    if authority.is_empty() || authority.contains('@') {
        return Err(invalid());
    }
    // An IPv6 address stands in brackets, so a colon after them, or any colon without them, begins a port.
    let after_brackets = authority.rsplit(']').next().unwrap_or(authority);
    let host = if after_brackets.contains(':') {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    Ok((host, path))
}

fn body_of(answer: &str) -> io::Result<&str> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(bad)?;
    let status_line = head.lines().next().unwrap_or_default();
    let status = status_line.split(' ').nth(1).ok_or_else(bad)?;
    if status.starts_with('2') {
        Ok(body)
    } else {
        Err(io::Error::other(format!("the answer is {status_line:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_split_into_address_and_path() {
        for (url, host, path) in [
            ("http://127.0.0.1:81/a/b?c", "127.0.0.1:81", "/a/b?c"),
            ("http://localhost", "localhost:80", "/"),
            ("http://[::1]/x", "[::1]:80", "/x"),
            ("http://[::1]:81/x", "[::1]:81", "/x"),
        ] {
            assert_eq!(split(url).unwrap(), (host.to_owned(), path), "{url}");
        }
        for url in [
            "https://localhost/",
            "localhost:80",
            "http:///x",
            "http://user@host/",
        ] {
            assert!(split(url).is_err(), "{url}");
        }
    }

    #[test]
    fn an_answer_that_is_not_2xx_is_an_error() {
        assert_eq!(body_of("HTTP/1.1 200 OK\r\nA: b\r\n\r\nhi").unwrap(), "hi");
        assert_eq!(
            body_of("HTTP/1.1 503 No\r\n\r\nhi")
                .unwrap_err()
                .to_string(),
            "the answer is \"HTTP/1.1 503 No\""
        );
        assert!(body_of("nonsense").is_err());
    }
}
