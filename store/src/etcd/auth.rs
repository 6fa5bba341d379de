//! Logging in with user and password, and the token that comes of it.

use std::sync::Arc;

use etcd_client::proto::{PbAuthenticateRequest, PbAuthenticateResponse};
use parking_lot::RwLock;
use tonic::metadata::AsciiMetadataValue;
use tracing::debug;

use super::errors::{Refusal, Verdict, judge};
use super::link::{Link, Route};
use super::options::Credentials;

const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

/// A user's login. Tokens end with the server that issued them, so they are renewed whenever one is refused.
pub(super) struct Auth {
    user: Credentials,
    token: RwLock<State>,
    /// One login at a time: each costs the server a bcrypt.
    login: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
enum State {
    LoggedOut,
    LoggedIn(AsciiMetadataValue),
    /// The server has authentication switched off, so calls go without a token.
    NotNeeded,
}

impl Auth {
    pub(super) fn new(user: Credentials) -> Self {
        Self {
            user,
            token: RwLock::new(State::LoggedOut),
            login: tokio::sync::Mutex::new(()),
        }
    }

    /// The token to send; logs in when there is none.
    pub(super) async fn token(
        &self,
        link: &Link,
        route: &Route,
    ) -> Result<Option<AsciiMetadataValue>, Verdict> {
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let _one = self.login.lock().await;
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let request = PbAuthenticateRequest {
            name: self.user.name.clone(),
            password: self.user.password.clone(),
        };
        let answer = link
            .send::<_, PbAuthenticateResponse>(AUTHENTICATE, Arc::new(request), route, None)
            .await;
        let state = match answer {
            Ok(answer) => State::LoggedIn(answer.token.parse().map_err(|_| {
                Verdict::Answer(Refusal::Unauthenticated(
                    "the server's token is not a header value".to_owned(),
                ))
            })?),
            Err(status) if status.message().contains("authentication is not enabled") => {
                debug!(
                    user = self.user.name,
                    "etcd has authentication switched off; going on without a token"
                );
                State::NotNeeded
            }
            Err(status) => return Err(judge(&status)),
        };
        *self.token.write() = state;
        Ok(self.known().flatten())
    }

    /// Forgets the token if it still is `refused`; with `None` forgets whatever there is.
    pub(super) fn forget(&self, refused: Option<&AsciiMetadataValue>) {
        let mut state = self.token.write();
        match (&*state, refused) {
            (State::LoggedIn(token), Some(refused)) if token != refused => {}
            _ => *state = State::LoggedOut,
        }
    }

    fn known(&self) -> Option<Option<AsciiMetadataValue>> {
        match &*self.token.read() {
            State::LoggedOut => None,
            State::LoggedIn(token) => Some(Some(token.clone())),
            State::NotNeeded => Some(None),
        }
    }
}
