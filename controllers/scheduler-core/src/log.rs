//! Which nodes changed, in order, for everything that is kept up to date by looking at those alone.

use std::collections::VecDeque;

/// The slots that changed, with gaps at the front: who is behind looks at all nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChangeLog {
    /// How many entries have been dropped.
    start: u64,
    slots: VecDeque<u32>,
    /// By slot: the number of its last entry, counted from 1; 0 for none.
    last: Vec<u64>,
    /// Everything before this has been read by somebody.
    read: u64,
}

impl ChangeLog {
    /// A slot changed. An entry that nobody has read yet stands for this change as well.
    pub(crate) fn push(&mut self, slot: u32) {
        let at = slot as usize;
        if at >= self.last.len() {
            self.last.resize(at + 1, 0);
        }
        if self.last[at] > self.read.max(self.start) {
            return;
        }
        // Whoever is further behind than the number of nodes is better off looking at all of them.
        if self.slots.len() > self.last.len().max(64) {
            self.slots.pop_front();
            self.start += 1;
        }
        self.slots.push_back(slot);
        self.last[at] = self.end();
    }

    /// Where the log ends now.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.slots.len() as u64
    }

    /// What was written is about to be read.
    pub(crate) fn close(&mut self) {
        self.read = self.end();
    }

    /// The changes since `seen`; `None` when some of them were dropped.
    pub(crate) fn since(&self, seen: u64) -> Option<impl Iterator<Item = u32> + Clone + '_> {
        let skip = seen.checked_sub(self.start)?;
        Some(self.slots.range(usize::try_from(skip).ok()?..).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_written_again_once_it_was_read() {
        let mut log = ChangeLog::default();
        log.push(3);
        log.push(3);
        assert_eq!(log.since(0).unwrap().collect::<Vec<_>>(), [3]);
        log.close();
        log.push(3);
        log.push(4);
        log.push(3);
        assert_eq!(log.since(1).unwrap().collect::<Vec<_>>(), [3, 4]);
    }

    #[test]
    fn who_is_too_far_behind_is_told_so() {
        let mut log = ChangeLog::default();
        for _ in 0..200 {
            log.push(1);
            log.close();
        }
        assert!(log.since(0).is_none());
        assert!(log.since(log.end()).is_some_and(|mut s| s.next().is_none()));
    }
}
