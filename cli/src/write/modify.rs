//! Changes one stored document in place, guarded on what was read.

use anyhow::{Context as _, Error, Result, anyhow, bail};
use setpoint_apis::{Key, ObjectKey};
use setpoint_store::{Compare, KeyValue, Txn};

use super::frozen;
use crate::client::Client;
use crate::kinds::KindInfo;
use crate::term;
use crate::yaml_edit::Edited;

/// How often a change is tried against others who change the same document.
const TRIES: usize = 5;

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Modified {
    /// It was made.
    Changed {
        /// The document had to be written anew, so that its comments are lost.
        rewritten: bool,
    },
    /// It was so already.
    Unchanged,
}

impl Modified {
    /// Warns when the comments of the document of `name` were lost by it.
    pub(crate) fn warn_when_rewritten(self, name: &str) {
        if self == (Self::Changed { rewritten: true }) {
            term::warn(format_args!(
                "the document of {name} was written anew; its comments are lost"
            ));
        }
    }
}

/// Changes a document. `change` gets the stored text and gives the new one; it is called again when somebody else was
/// faster. Warns when the object is frozen, so that nothing will come of it.
///
/// # Errors
/// When the object does not exist, the change fails or is not valid, or others change it all the time.
pub(crate) async fn modify(
    client: &Client,
    kind: KindInfo,
    key: &ObjectKey,
    mut change: impl FnMut(&str, &KeyValue) -> Result<Edited>,
) -> Result<Modified> {
    let path = client.key(&Key::Desired(kind.plural, key.clone()));
    let mut last = None;
    for _ in 0..TRIES {
        let wanted = Key::Desired(kind.plural, key.clone());
        let ((stored, _), timeline) = tokio::try_join!(client.get(&wanted), client.timeline())?;
        let Some(stored) = stored else {
            bail!("{} {:?} not found", kind.full_plural(), &*key.name)
        };
        let broken = |error| explain(client, kind, key, &stored, error);
        let text = std::str::from_utf8(&stored.value)
            .context("the stored document is not UTF-8")
            .map_err(broken)?;
        let edited = change(text, &stored).map_err(broken)?;
        if edited.text == text {
            return Ok(Modified::Unchanged);
        }
        let checked = check(client, kind, key, &stored, &edited.text).await;
        checked.map_err(broken)?;
        let mut txn = Txn::new()
            .when(Compare::ModRevision(path.clone(), stored.mod_revision))
            .put(path.clone(), edited.text.clone());
        txn.then.push(client.clock_put(&timeline));
        match client.txn(txn).await {
            Ok(result) if result.succeeded => {
                warn_of_frozen(client, kind, key).await;
                return Ok(Modified::Changed {
                    rewritten: edited.rewritten,
                });
            }
            Ok(_) => last = None,
            // It may have been applied: read again, and see whether there is anything left to change.
            Err(error) if error.is_retryable() => last = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    match last {
        Some(error) => Err(error).context("the change was tried several times"),
        None => bail!(
            "{} is being changed by others all the time; try again",
            kind.full_name(&key.name)
        ),
    }
}

async fn warn_of_frozen(client: &Client, kind: KindInfo, key: &ObjectKey) {
    // It is written, whatever this look-up comes to.
    let found = client.find(kind, key).await.ok().flatten();
    if let Some(why) = found.as_ref().and_then(frozen::warning) {
        term::warn(why);
    }
}

/// Names the object whose stored document is broken, and says what can be done; other errors stay as they are.
fn explain(
    client: &Client,
    kind: KindInfo,
    key: &ObjectKey,
    stored: &KeyValue,
    error: Error,
) -> Error {
    if kind.read(key, &stored.value).is_ok() {
        return error;
    }
    let name = kind.full_name(&key.name);
    let namespace = match &*key.namespace {
        "" => String::new(),
        namespace => format!(" -n {namespace}"),
    };
    anyhow!(
        "{name} was not changed, because its stored document is invalid: {error:#}; apply its manifest again, or look \
         with `setpoint get {name}{namespace} -o yaml` and put it right with `etcdctl put '{}'`",
        client.key(&Key::Desired(kind.plural, key.clone()))
    )
}

/// Whether a new text may replace a stored document.
///
/// # Errors
/// When it is not valid, or changes what must stay; when the store does not answer.
pub(crate) async fn check(
    client: &Client,
    kind: KindInfo,
    key: &ObjectKey,
    stored: &KeyValue,
    text: &str,
) -> Result<()> {
    let new = kind.read(key, text.as_bytes())?;
    if let Ok(old) = kind.read(key, &stored.value)
        && let Some(why) = frozen::refusal(client, (kind, key), stored, (&old, &new), text).await?
    {
        bail!("{}: {why}", kind.full_name(&key.name));
    }
    Ok(())
}
