//! A web server of a few hundred lines and no dependencies, to have something real in a pod.
//!
//! It answers every path with what it was given: the pod and node it runs in (downward API), a greeting (ConfigMap), a
//! file (mounted ConfigMap), and whether a secret arrived (its length and a fingerprint, never its value). `/healthz` is
//! for probes. SIGTERM ends it after the requests in flight are answered.
//!
//! ```text
//! hello-http                 serve on $POD_IP (or $ADDR, or 127.0.0.1), port $PORT (or 8080)
//! hello-http --get URL       fetch a URL and print the body, so that a check needs no curl
//! hello-http --fingerprint   print the fingerprint of what stands on stdin
//! ```

mod client;
mod server;
mod settings;
mod terminate;

use std::env;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use settings::Settings;

const USAGE: &str = "usage: hello-http [--get URL | --fingerprint]";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let result = match args
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        [] => serve(),
        ["--get", url] => client::get(url).and_then(|body| print(&body)),
        ["--fingerprint"] => fingerprint_stdin(),
        _ => {
            complain(USAGE);
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("hello-http: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    // Before the first thread, so that no request to end is missed.
    let signal = terminate::install()?;
    let settings = Settings::from_env(|name| env::var(name).ok())?;
    let server = server::Server::bind(settings)?;
    print(&format!("listening on {}\n", server.address()))?;
    server.run_until(|| signal.wait())?;
    print("stopped\n")
}

fn fingerprint_stdin() -> io::Result<()> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    print(&format!("{}\n", settings::fingerprint(text.as_bytes())))
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Where stderr is gone there is nobody left to tell.
fn complain(text: &str) {
    writeln!(io::stderr(), "{text}").ok();
}
