//! Reading a whole range in pages, all of one revision.
//!
//! The first page fixes the revision, the others are read as of it, so the listing is what the store held at one moment,
//! however long it takes. If that revision is compacted on the way the listing begins again, a bounded number of times.

use futures::stream::{self, Stream, TryStreamExt};

use crate::error::StoreError;
use crate::types::{KeyValue, RangeRequest, Revision};
use crate::{SharedStore, Store};

/// What to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// The first key.
    pub start: String,
    /// The first key past the range.
    pub end: String,
    /// Keys per page.
    pub page_size: i64,
    /// Leave the values out.
    pub keys_only: bool,
    /// How often to begin again after a compaction, before the error is handed on.
    pub restarts: u32,
}

impl List {
    /// The range `[start, end)`, values included, 2,000 keys per page, begun again up to three times.
    pub fn new(start: impl Into<String>, end: impl Into<String>) -> Self {
        Self {
            start: start.into(),
            end: end.into(),
            page_size: 2_000,
            keys_only: false,
            restarts: 3,
        }
    }

    /// With pages of this size.
    #[must_use]
    pub fn page_size(mut self, keys: i64) -> Self {
        self.page_size = keys.max(1);
        self
    }

    /// Without values.
    #[must_use]
    pub fn keys_only(mut self) -> Self {
        self.keys_only = true;
        self
    }
}

/// A step of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// A listing begins. What came before, if anything, is void.
    Begin,
    /// The next keys, in order.
    Page(Vec<KeyValue>),
    /// That was all, as of this revision.
    Done(Revision),
}

/// Lists a range. The revision is the one that all pages are of: watch from the next one to go on from there.
///
/// # Errors
/// As [`Store::range`]; [`StoreError::Compacted`] when the listing was overtaken by compactions too often.
pub async fn list_all(
    store: &dyn Store,
    list: List,
) -> Result<(Vec<KeyValue>, Revision), StoreError> {
    let mut machine = Machine::new(list);
    let mut all = Vec::new();
    loop {
        match machine.step(store).await? {
            Listed::Begin => all.clear(),
            Listed::Page(mut page) if all.is_empty() => std::mem::swap(&mut all, &mut page),
            Listed::Page(page) => all.extend(page),
            Listed::Done(revision) => return Ok((all, revision)),
        }
    }
}

/// As [`list_all`], page by page. Ends after [`Listed::Done`] or the first error.
pub fn list_stream(
    store: SharedStore,
    list: List,
) -> impl Stream<Item = Result<Listed, StoreError>> + Send + 'static {
    stream::try_unfold(Some((store, Machine::new(list))), |state| async move {
        let Some((store, mut machine)) = state else {
            return Ok::<_, StoreError>(None);
        };
        let step = machine.step(&*store).await?;
        let next = (!matches!(step, Listed::Done(_))).then_some((store, machine));
        Ok(Some((step, next)))
    })
    .into_stream()
}

struct Machine {
    list: List,
    restarts_left: u32,
    state: State,
}

enum State {
    Begin,
    First,
    /// At a pinned revision, from this key on.
    Next(Revision, String),
    Done(Revision),
}

impl Machine {
    fn new(list: List) -> Self {
        Self {
            restarts_left: list.restarts,
            list,
            state: State::Begin,
        }
    }

    async fn step(&mut self, store: &dyn Store) -> Result<Listed, StoreError> {
        let (pinned, start) = match &self.state {
            State::Begin => {
                self.state = State::First;
                return Ok(Listed::Begin);
            }
            State::Done(revision) => return Ok(Listed::Done(*revision)),
            State::First => (None, self.list.start.clone()),
            State::Next(revision, start) => (Some(*revision), start.clone()),
        };
        let request = RangeRequest {
            start,
            end: self.list.end.clone(),
            limit: self.list.page_size,
            revision: pinned,
            keys_only: self.list.keys_only,
            count_only: false,
        };
        match store.range(request).await {
            Ok(page) => {
                let revision = pinned.unwrap_or(page.revision);
                self.state = match page.kvs.last() {
                    // The smallest key after the last one.
                    Some(last) if page.more => State::Next(revision, format!("{}\0", last.key)),
                    _ => State::Done(revision),
                };
                Ok(Listed::Page(page.kvs))
            }
            Err(StoreError::Compacted { .. }) if self.restarts_left > 0 => {
                self.restarts_left -= 1;
                self.state = State::First;
                Ok(Listed::Begin)
            }
            Err(error) => Err(error),
        }
    }
}
