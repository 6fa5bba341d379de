//! Probes and hooks: asks a container something, over HTTP, TCP, or by running a command in it.

use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::IntOrString;
use setpoint_apis::core::{
    Container as Definition, HttpGetAction, LifecycleHandler, Probe, TcpSocketAction, UriScheme,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::model::ProbeKind;
use crate::driver::{Container, DriverError, ExecRequest};

/// Until a container has answered for the first time it is asked more often than the probe's period says: the pauses
/// double from this one on. These attempts count only when they succeed, so a container is ready milliseconds after it
/// can be, and no threshold is reached earlier.
const FIRST_RETRY: Duration = Duration::from_millis(20);
/// A command costs a process.
const FIRST_RETRY_EXEC: Duration = Duration::from_millis(100);

/// Whom to ask.
#[derive(Clone, Debug)]
pub struct Target {
    /// The container.
    pub container: Arc<dyn Container>,
    /// Its definition, for the names of its ports.
    pub definition: Arc<Definition>,
    /// The pod's address.
    pub pod_ip: String,
}

/// Asks again and again. `tell` takes the results that count; the loop ends when it returns false.
pub async fn run<F, Fut>(
    kind: ProbeKind,
    probe: Probe,
    target: Target,
    answered_before: bool,
    tell: F,
) where
    F: Fn(Result<(), String>) -> Fut + Send,
    Fut: Future<Output = bool> + Send,
{
    let seconds = |s: i32| Duration::from_secs(s.max(0).unsigned_abs().into());
    let period = seconds(probe.period_seconds().max(1));
    let limit = seconds(probe.timeout_seconds().max(1));
    let mut due = Instant::now() + seconds(probe.initial_delay_seconds());
    let mut retry = match kind {
        // Its failures only matter when there are many of them.
        ProbeKind::Liveness => period,
        _ if answered_before => period,
        _ if probe.exec.is_some() => FIRST_RETRY_EXEC,
        _ => FIRST_RETRY,
    };
    loop {
        sleep_until(due).await;
        let result = check(&probe, &target, limit).await;
        let success = result.is_ok();
        if !success && retry < period {
            due = Instant::now() + retry;
            retry = (retry * 2).min(period);
            continue;
        }
        retry = period;
        if !tell(result).await {
            return;
        }
        // A late answer delays the next question, it does not make two of them follow each other at once.
        due = (due + period).max(Instant::now());
    }
}

async fn check(probe: &Probe, target: &Target, limit: Duration) -> Result<(), String> {
    if let Some(action) = &probe.exec {
        return exec(target, &action.command, limit).await;
    }
    let asked = async {
        if let Some(action) = &probe.http_get {
            http_get(target, action).await
        } else if let Some(action) = &probe.tcp_socket {
            tcp(target, action).await
        } else {
            Err("grpc probes are not supported by this version".to_owned())
        }
    };
    timeout(limit, asked)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
}

/// Runs a hook.
///
/// # Errors
/// Why it failed, for people.
pub async fn hook(
    handler: &LifecycleHandler,
    target: &Target,
    limit: Duration,
) -> Result<(), String> {
    if let Some(action) = &handler.exec {
        return exec(target, &action.command, limit).await;
    }
    let run = async {
        if let Some(action) = &handler.http_get {
            http_get(target, action).await
        } else if let Some(action) = &handler.sleep {
            tokio::time::sleep(super::model::seconds(action.seconds)).await;
            Ok(())
        } else {
            Err("a hook needs exec, httpGet or sleep".to_owned())
        }
    };
    timeout(limit, run)
        .await
        .unwrap_or_else(|_| Err(format!("did not end within {limit:?}")))
}

async fn exec(target: &Target, command: &[String], limit: Duration) -> Result<(), String> {
    match target
        .container
        .exec(ExecRequest {
            argv: command.to_vec(),
            timeout: limit,
        })
        .await
    {
        Ok(output) if output.exit_code == 0 => Ok(()),
        Ok(output) => Err(format!(
            "exit code {}: {}",
            output.exit_code,
            output.output.trim()
        )),
        Err(DriverError::Timeout(limit)) => Err(format!("command timed out after {limit:?}")),
        Err(error) => Err(error.to_string()),
    }
}

fn port(target: &Target, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(n) => Some(*n),
        IntOrString::String(name) => {
            let named = target
                .definition
                .ports
                .iter()
                .find(|p| p.name.as_deref() == Some(name));
            named
                .map(|p| p.container_port)
                .or_else(|| name.parse().ok())
        }
    };
    number
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| *n > 0)
        .ok_or_else(|| format!("the container has no port {port}"))
}

fn host<'a>(target: &'a Target, host: Option<&'a str>) -> &'a str {
    host.filter(|h| !h.is_empty()).unwrap_or(&target.pod_ip)
}

async fn tcp(target: &Target, action: &TcpSocketAction) -> Result<(), String> {
    let (host, port) = (
        host(target, action.host.as_deref()),
        port(target, &action.port)?,
    );
    TcpStream::connect((host, port))
        .await
        .map(drop)
        .map_err(|e| format!("dial tcp {host}:{port}: {e}"))
}

async fn http_get(target: &Target, action: &HttpGetAction) -> Result<(), String> {
    if action.scheme == Some(UriScheme::Https) {
        return Err("scheme HTTPS is not supported by this version".to_owned());
    }
    let (host, port) = (
        host(target, action.host.as_deref()),
        port(target, &action.port)?,
    );
    let path = action.path.as_deref().unwrap_or("/");
    let request = request(action, host, port, path)?;
    let failed = |e: std::io::Error| format!("Get \"http://{host}:{port}{path}\": {e}");
    let mut stream = TcpStream::connect((host, port)).await.map_err(failed)?;
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    match status(&mut stream).await.map_err(failed)? {
        Some(code) if (200..400).contains(&code) => Ok(()),
        Some(code) => Err(format!("HTTP probe failed with statuscode: {code}")),
        None => Err(format!(
            "Get \"http://{host}:{port}{path}\": the answer is no HTTP"
        )),
    }
}

fn request(action: &HttpGetAction, host: &str, port: u16, path: &str) -> Result<String, String> {
    let broken = |text: &str| text.contains(['\r', '\n']);
    if path.contains(' ')
        || broken(path)
        || action
            .http_headers
            .iter()
            .any(|h| broken(&h.name) || broken(&h.value))
    {
        return Err("the path or a header contains a blank or a line break".to_owned());
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut request = format!("GET {slash}{path} HTTP/1.1\r\n");
    let own = [
        ("Host", format!("{host}:{port}")),
        (
            "User-Agent",
            format!("setpoint-probe/{}", env!("CARGO_PKG_VERSION")),
        ),
        ("Accept", "*/*".to_owned()),
    ];
    for (name, value) in own {
        if !action
            .http_headers
            .iter()
            .any(|h| h.name.eq_ignore_ascii_case(name))
        {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    for header in &action.http_headers {
        request.push_str(&format!("{}: {}\r\n", header.name, header.value));
    }
    request.push_str("Connection: close\r\n\r\n");
    Ok(request)
}

/// The code of an answer's status line.
async fn status(stream: &mut TcpStream) -> std::io::Result<Option<u16>> {
    let mut head = Vec::with_capacity(256);
    let mut chunk = [0; 256];
    while !head.contains(&b'\n') && head.len() < 4096 {
        match stream.read(&mut chunk).await? {
            0 => break,
            n => head.extend_from_slice(&chunk[..n]),
        }
    }
    let line = String::from_utf8_lossy(&head);
    let mut words = line.lines().next().unwrap_or_default().split(' ');
    Ok(words
        .next()
        .filter(|v| v.starts_with("HTTP/1."))
        .and(words.next())
        .and_then(|code| code.parse().ok()))
}

#[cfg(test)]
mod tests;
