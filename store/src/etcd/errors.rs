//! What a failed call means: may it have been applied, and is it worth trying elsewhere?

use std::error::Error;

use tonic::{Code, ConnectError, Status};

use crate::error::StoreError;

/// Whether a call can change the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It cannot: a lost answer is just a missing one, and the call may be repeated.
    Read,
    /// It can: a lost answer leaves the outcome open, and the call must not be repeated.
    Write,
}

/// What to do about a failed call.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The request never left: another endpoint may be asked, whatever the call.
    NotSent(String),
    /// The request may have been received, the answer is lost.
    Lost(String),
    /// The token was refused before anything was looked at.
    TokenRefused(String),
    /// The server's answer.
    Answer(Refusal),
}

/// An error that the server, or the client's own checks, gave as the answer.
#[derive(Debug)]
pub(super) enum Refusal {
    NoSpace,
    Compacted,
    LeaseNotFound,
    TooLarge(String),
    PermissionDenied(String),
    Unauthenticated(String),
    Invalid(String),
    /// Not now; not applied.
    Busy(String),
}

impl Refusal {
    pub(super) fn into_error(self, context: String) -> StoreError {
        match self {
            Self::NoSpace => StoreError::NoSpace { context },
            Self::Compacted => StoreError::Compacted {
                context,
                compact_revision: 0,
            },
            Self::LeaseNotFound => StoreError::LeaseNotFound { context },
            Self::TooLarge(message) => StoreError::TooLarge { context, message },
            Self::PermissionDenied(message) => StoreError::PermissionDenied { context, message },
            Self::Unauthenticated(message) => StoreError::Unauthenticated { context, message },
            Self::Invalid(message) => StoreError::Invalid { context, message },
            Self::Busy(message) => StoreError::Unavailable { context, message },
        }
    }
}

/// Judges a status. etcd's own errors are told by their texts, which are part of its API; codes alone are ambiguous.
pub(super) fn judge(status: &Status) -> Verdict {
    if let Some(text) = certificate_problem(status) {
        // The handshake failed, so the request was never looked at.
        return Verdict::Answer(Refusal::Unauthenticated(text));
    }
    if never_sent(status) {
        return Verdict::NotSent(root_cause(status));
    }
    let message = status.message();
    if let Some(refusal) = known_text(message) {
        return match refusal {
            Refusal::Unauthenticated(text) if is_stale_token(message) => {
                Verdict::TokenRefused(text)
            }
            refusal => Verdict::Answer(refusal),
        };
    }
    match status.code() {
        Code::Unauthenticated => Verdict::TokenRefused(plain(message)),
        Code::PermissionDenied => Verdict::Answer(Refusal::PermissionDenied(plain(message))),
        // tonic's limits on messages: encoding is checked before sending, decoding after the server has done its work.
        Code::ResourceExhausted
            if message.contains("larger than max")
                || message.contains("message length too large") =>
        {
            Verdict::Answer(Refusal::TooLarge(plain(message)))
        }
        Code::OutOfRange if message.contains("message length too large") => {
            Verdict::Lost(plain(message))
        }
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::NotFound
        | Code::AlreadyExists
        | Code::OutOfRange
        | Code::Unimplemented => Verdict::Answer(Refusal::Invalid(plain(message))),
        _ => Verdict::Lost(root_cause(status)),
    }
}

/// The meaning of a text of etcd's, also in the `cancel_reason` of a watch.
pub(super) fn known_text(message: &str) -> Option<Refusal> {
    let has = |text: &str| message.contains(text);
    Some(if has("database space exceeded") {
        Refusal::NoSpace
    } else if has("requested lease not found") {
        Refusal::LeaseNotFound
    } else if has("required revision has been compacted") {
        Refusal::Compacted
    } else if has("too many operations in txn request") || has("request is too large") {
        Refusal::TooLarge(plain(message))
    } else if has("permission denied") {
        Refusal::PermissionDenied(plain(message))
    } else if has("too many requests") {
        Refusal::Busy(plain(message))
    } else if is_stale_token(message) || has("authentication failed") {
        Refusal::Unauthenticated(plain(message))
    } else {
        return None;
    })
}

/// `user name is empty` is what a server with authentication says to a call without a token.
fn is_stale_token(message: &str) -> bool {
    [
        "invalid auth token",
        "user name is empty",
        "revision of auth store is old",
    ]
    .iter()
    .any(|text| message.contains(text))
}

/// The text without the layers that were put around it.
fn plain(message: &str) -> String {
    message
        .rsplit("desc = ")
        .next()
        .unwrap_or(message)
        .trim_start_matches("etcdserver: ")
        .to_owned()
}

fn chain(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(
        status.source(),
        |error: &&(dyn Error + 'static)| -> Option<&(dyn Error + 'static)> { (*error).source() },
    )
}

fn never_sent(status: &Status) -> bool {
    chain(status).any(|error| error.is::<ConnectError>())
}

/// The innermost cause: `connection refused` rather than `transport error`.
pub(super) fn root_cause(status: &Status) -> String {
    let text = chain(status)
        .last()
        .map_or_else(|| plain(status.message()), ToString::to_string);
    let text = text.split(" (os error").next().unwrap_or(&text);
    if text.is_empty() {
        return format!("{:?}", status.code());
    }
    let mut chars = text.chars();
    match chars.next() {
        // `Connection refused` stands in the middle of a sentence.
        Some(first) if text.contains(' ') => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

fn certificate_problem(status: &Status) -> Option<String> {
    chain(status)
        .map(ToString::to_string)
        .filter(|text| {
            let text = text.to_ascii_lowercase();
            text.contains("certificate")
                || (text.contains("fatal alert") && !text.contains("internalerror"))
        })
        .last()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(code: Code, message: &str) -> String {
        format!("{:?}", judge(&Status::new(code, message)))
    }

    #[test]
    fn every_text_of_etcd_has_its_meaning() {
        for (code, message, expected) in [
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                "Answer(NoSpace)",
            ),
            (
                Code::NotFound,
                "etcdserver: requested lease not found",
                "Answer(LeaseNotFound)",
            ),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                "Answer(Compacted)",
            ),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
                r#"Answer(Invalid("mvcc: required revision is a future revision"))"#,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: too many operations in txn request",
                r#"Answer(TooLarge("too many operations in txn request"))"#,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: request is too large",
                r#"Answer(TooLarge("request is too large"))"#,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: duplicate key given in txn request",
                r#"Answer(Invalid("duplicate key given in txn request"))"#,
            ),
            (
                Code::PermissionDenied,
                "etcdserver: permission denied",
                r#"Answer(PermissionDenied("permission denied"))"#,
            ),
            (
                Code::Unauthenticated,
                "etcdserver: invalid auth token",
                r#"TokenRefused("invalid auth token")"#,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: user name is empty",
                r#"TokenRefused("user name is empty")"#,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                r#"Answer(Unauthenticated("authentication failed, invalid user ID or password"))"#,
            ),
            (
                Code::ResourceExhausted,
                "etcdserver: too many requests",
                r#"Answer(Busy("too many requests"))"#,
            ),
            (
                Code::Unavailable,
                "etcdserver: request timed out",
                r#"Lost("request timed out")"#,
            ),
            (
                Code::Unavailable,
                "etcdserver: leader changed",
                r#"Lost("leader changed")"#,
            ),
            (
                Code::Unknown,
                "raft proposal dropped",
                r#"Lost("raft proposal dropped")"#,
            ),
            (Code::DeadlineExceeded, "", r#"Lost("DeadlineExceeded")"#),
        ] {
            assert_eq!(verdict(code, message), expected, "{message}");
        }
    }

    #[test]
    fn a_failed_connection_was_never_sent() {
        let io = std::io::Error::from_raw_os_error(111);
        let status = Status::from_error(Box::new(ConnectError(Box::new(io))));
        assert_eq!(
            format!("{:?}", judge(&status)),
            r#"NotSent("connection refused")"#
        );
    }
}
