//! What the kernel says of a process: cpu time, memory, and who listens on a port.

use std::path::Path;

use setpoint_store::etcd::ConnectOptions;

/// User and system time of a process so far, in seconds; 0 when it is gone.
pub(super) fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    ticks(&stat).map_or(0.0, |ticks| {
        ticks as f64 / rustix::param::clock_ticks_per_second().max(1) as f64
    })
}

/// The command name, in parentheses, may hold anything; user and system time are the 12th and 13th field after it.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// The process of this machine that listens where `endpoint` says; `None` when it is elsewhere, or not ours to see.
pub(super) fn listener(endpoint: &str) -> Option<u32> {
    let ConnectOptions { endpoints, .. } = ConnectOptions::new([endpoint]);
    let address = endpoints.first()?.trim_end_matches('/').to_owned();
    let (host, port) = address.rsplit_once(':')?;
    let host = host.rsplit('/').next()?;
    if !matches!(host, "127.0.0.1" | "localhost" | "[::1]") {
        return None;
    }
    let port: u16 = port.parse().ok()?;
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| listening(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    std::fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(|pid: &u32| {
            let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
                return false;
            };
            files.filter_map(Result::ok).any(|file| {
                std::fs::read_link(file.path())
                    .is_ok_and(|to| inodes.iter().any(|inode| to == Path::new(inode)))
            })
        })
}

/// The inodes of the sockets that listen on a port, out of the kernel's table.
fn listening(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
            (local.ends_with(&suffix) && *state == LISTEN).then(|| (*inode).to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_command_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 100 1 1 18446744073709551615";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 (x"), None);
    }

    #[test]
    fn the_listener_of_a_port_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", socket.local_addr().unwrap());
        assert_eq!(listener(&endpoint), Some(std::process::id()));
        assert_eq!(listener("http://example.com:2379"), None);
    }
}
