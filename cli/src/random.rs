//! Randomness for names, from the kernel. Nothing here decides anything that a test would want to repeat.

use std::fs::File;
use std::io::Read as _;

use anyhow::{Context, Result};

/// Random bytes.
///
/// # Errors
/// When the kernel has none to give.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let read = File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes));
    read.context("reading /dev/urandom")?;
    Ok(bytes)
}

/// Five characters for the end of a generated name. Letters and digits that form no words, as Kubernetes takes them.
///
/// # Errors
/// As [`bytes()`].
pub(crate) fn suffix() -> Result<String> {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    Ok(bytes::<5>()?
        .iter()
        .map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()]))
        .collect())
}
