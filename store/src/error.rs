//! Errors of the store, and the one question that matters about them: may the write have happened?

/// Whether a failed operation may have taken effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did not, and will not.
    NotApplied,
    /// It may have been applied, or may still be: read before deciding, and fence older writes.
    Unknown,
}

/// A failed operation.
///
/// `context` names what was attempted, on which key.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// No member answered, and the request was never sent.
    #[error("{context}: etcd is not reachable: {message}")]
    Unavailable {
        /// What was attempted.
        context: String,
        /// What the transport said.
        message: String,
    },
    /// The answer did not arrive: a time-out, a lost connection, a leader change, no space.
    #[error("{context}: the outcome is unknown: {message}")]
    Unknown {
        /// What was attempted.
        context: String,
        /// What the transport or the server said.
        message: String,
    },
    /// The revision has been compacted.
    #[error("{context}: revision is compacted, oldest is {compact_revision}")]
    Compacted {
        /// What was attempted.
        context: String,
        /// The oldest revision that is left; 0 when the server does not say.
        compact_revision: i64,
    },
    /// The database is over its quota. etcd may apply the write all the same.
    #[error("{context}: etcd is out of space (NOSPACE): compact, defragment, and disarm the alarm")]
    NoSpace {
        /// What was attempted.
        context: String,
    },
    /// The request or a value is larger than the server takes, or has too many operations.
    #[error("{context}: too large for etcd: {message}")]
    TooLarge {
        /// What was attempted.
        context: String,
        /// What the server said.
        message: String,
    },
    /// The user may not do that.
    #[error("{context}: permission denied: {message}")]
    PermissionDenied {
        /// What was attempted.
        context: String,
        /// What the server said.
        message: String,
    },
    /// Wrong or missing credentials, or a certificate that is not trusted.
    #[error("{context}: authentication failed: {message}")]
    Unauthenticated {
        /// What was attempted.
        context: String,
        /// What the server said.
        message: String,
    },
    /// The lease has expired or was revoked.
    #[error("{context}: the lease does not exist")]
    LeaseNotFound {
        /// What was attempted.
        context: String,
    },
    /// The request is malformed: a bug, or a configuration that cannot work.
    #[error("{context}: {message}")]
    Invalid {
        /// What was attempted.
        context: String,
        /// What is wrong.
        message: String,
    },
}

impl StoreError {
    /// Whether the operation may have taken effect.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Unknown { .. } | Self::NoSpace { .. } => Outcome::Unknown,
            _ => Outcome::NotApplied,
        }
    }

    /// What was attempted, on which key.
    pub fn context(&self) -> &str {
        match self {
            Self::Unavailable { context, .. }
            | Self::Unknown { context, .. }
            | Self::Compacted { context, .. }
            | Self::NoSpace { context }
            | Self::TooLarge { context, .. }
            | Self::PermissionDenied { context, .. }
            | Self::Unauthenticated { context, .. }
            | Self::LeaseNotFound { context }
            | Self::Invalid { context, .. } => context,
        }
    }

    /// The same error, of another attempt.
    #[must_use]
    pub fn with_context(mut self, attempted: impl Into<String>) -> Self {
        match &mut self {
            Self::Unavailable { context, .. }
            | Self::Unknown { context, .. }
            | Self::Compacted { context, .. }
            | Self::NoSpace { context }
            | Self::TooLarge { context, .. }
            | Self::PermissionDenied { context, .. }
            | Self::Unauthenticated { context, .. }
            | Self::LeaseNotFound { context }
            | Self::Invalid { context, .. } => *context = attempted.into(),
        }
        self
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. } | Self::Unknown { .. } | Self::NoSpace { .. }
        )
    }
}
