//! Texts as small numbers: labels and resource names are compared often and written rarely.

use std::sync::Arc;

use rustc_hash::FxHashMap;

/// An interned text.
pub(crate) type Symbol = u32;

/// Texts and their numbers. Texts are never forgotten: there are as many as distinct labels of nodes and selectors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interner {
    symbols: FxHashMap<Arc<str>, Symbol>,
    texts: Vec<Arc<str>>,
}

impl Interner {
    /// The number of a text.
    pub(crate) fn intern(&mut self, text: &str) -> Symbol {
        if let Some(symbol) = self.symbols.get(text) {
            return *symbol;
        }
        let symbol = Symbol::try_from(self.texts.len())
            .expect("fewer than 2^32 distinct labels fit into memory");
        let text: Arc<str> = Arc::from(text);
        self.texts.push(text.clone());
        self.symbols.insert(text, symbol);
        symbol
    }

    /// The text of a number that [`Interner::intern`] gave out.
    pub(crate) fn text(&self, symbol: Symbol) -> &Arc<str> {
        &self.texts[symbol as usize]
    }
}
