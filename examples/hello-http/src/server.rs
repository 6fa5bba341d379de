//! The server: one thread per connection, one request per connection, and an end that waits for both.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::settings::Settings;

/// How long a client may take to send its request or to take the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// More than any header we answer.
const MAX_REQUEST_BYTES: u64 = 16 * 1024;

/// A bound server.
pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
    settings: Arc<Settings>,
}

impl Server {
    /// Binds the address.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub(crate) fn bind(settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).map_err(|e| {
            io::Error::new(
                e.kind(),
                format!("cannot listen on {}: {e}", settings.listen),
            )
        })?;
        let address = listener.local_addr()?;
        Ok(Self {
            listener,
            address,
            settings: Arc::new(settings),
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` returns, then answers what is in flight. `stop` runs in a thread of its own.
    ///
    /// # Errors
    /// The listener failed.
    pub(crate) fn run_until(self, stop: impl FnOnce() -> io::Result<()> + Send) -> io::Result<()> {
        let stopping = AtomicBool::new(false);
        let address = self.address;
        // The scope ends when every connection is done: that is the graceful part.
        thread::scope(|scope| {
            let waker = scope.spawn(|| {
                let result = stop();
                stopping.store(true, Ordering::SeqCst);
                // Nothing but a connection wakes accept().
                TcpStream::connect_timeout(&address, CLIENT_TIMEOUT).ok();
                result
            });
            for connection in self.listener.incoming() {
                if stopping.load(Ordering::SeqCst) {
                    break;
                }
                // A client that went away before it was accepted is its own problem.
                let Ok(connection) = connection else { continue };
                let settings = Arc::clone(&self.settings);
                scope.spawn(move || answer(connection, &settings).ok());
            }
            drop(self.listener);
            waker.join().unwrap_or_else(|_| {
                Err(io::Error::other(
                    "the thread that waits for signals panicked",
                ))
            })
        })
    }
}

fn answer(mut connection: TcpStream, settings: &Settings) -> io::Result<()> {
    connection.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    connection.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let (method, path) = read_request(&connection)?;
    let (status, body) = match (method.as_str(), path.as_str()) {
        ("GET" | "HEAD", "/healthz") => ("200 OK", "ok\n".to_owned()),
        ("GET" | "HEAD", _) => ("200 OK", settings.page()),
        _ => ("405 Method Not Allowed", "only GET and HEAD\n".to_owned()),
    };
    let length = body.len();
    let body = if method == "HEAD" { "" } else { &body };
    write!(
        connection,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// Reads a request to the end of its header and gives back method and path.
fn read_request(connection: &TcpStream) -> io::Result<(String, String)> {
    let mut lines = BufReader::new(connection.take(MAX_REQUEST_BYTES)).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let mut words = first.split(' ');
    match (words.next(), words.next()) {
        (Some(method), Some(path)) => Ok((method.to_owned(), path.to_owned())),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not an HTTP request",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::client;

    fn settings() -> Settings {
        Settings::from_env(|name| match name {
            "PORT" => Some("0".to_owned()),
            "POD_NAME" => Some("hello-1".to_owned()),
            _ => None,
        })
        .unwrap()
    }

    #[test]
    fn the_client_gets_what_the_server_says() {
        let server = Server::bind(settings()).unwrap();
        let address = server.address();
        let (stop, stopped) = mpsc::channel::<()>();
        let running = thread::spawn(move || {
            server.run_until(move || stopped.recv().map_err(io::Error::other))
        });
        assert_eq!(
            client::get(&format!("http://{address}/healthz")).unwrap(),
            "ok\n"
        );
        assert!(
            client::get(&format!("http://{address}"))
                .unwrap()
                .contains("pod: hello-1\n")
        );
        stop.send(()).unwrap();
        running.join().unwrap().unwrap();
        assert!(client::get(&format!("http://{address}/healthz")).is_err());
    }

    #[test]
    fn a_request_in_flight_is_answered_after_the_request_to_stop() {
        let server = Server::bind(settings()).unwrap();
        let address = server.address();
        let (stop, stopped) = mpsc::channel::<()>();
        let running = thread::spawn(move || {
            server.run_until(move || stopped.recv().map_err(io::Error::other))
        });
        let mut slow = TcpStream::connect(address).unwrap();
        slow.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
        // Accepted in order: once a later connection was answered, the slow one is in flight.
        client::get(&format!("http://{address}/healthz")).unwrap();
        stop.send(()).unwrap();
        slow.write_all(b"\r\n").unwrap();
        let mut answer = String::new();
        slow.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
        running.join().unwrap().unwrap();
    }
}
