//! Reads what our own writers write, without a YAML parser: a third of a scheduler's time went into one.
//!
//! It knows a small part of YAML, in which every text means one thing: block mappings and sequences, `{}` and `[]`, and
//! scalars on one line that are plain or quoted without an escape; printable ASCII, no comments, no nulls, no blank lines.
//! What it reads, the ordinary reader reads to the same value. Of everything else it says nothing, errors included: then
//! the ordinary reader decides what the document is.

use std::cmp::Ordering;
use std::fmt;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Visitor};

/// How deep mappings and sequences may nest here; far below what the ordinary reader takes.
const MOST_DEEP: usize = 32;
/// The most bytes of a key here. YAML's own limit is 1024.
const LONGEST_KEY: usize = 300;

/// The value, when the text is of the kind that the module describes and holds a `T`.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Option<T> {
    if !text.bytes().all(|b| matches!(b, b' '..=b'~' | b'\n')) {
        return None;
    }
    let mut cursor = Cursor::new(text);
    cursor.advance().ok()?;
    if cursor.indent != 0 || cursor.ended {
        return None;
    }
    let node = cursor.block().ok()?;
    if matches!(node, Node::Scalar(_)) {
        return None;
    }
    let value = T::deserialize(Reader {
        cursor: &mut cursor,
        node,
    });
    value.ok().filter(|_| cursor.ended)
}

/// It is not for this reader to say what the document is.
#[derive(Debug)]
struct Elsewhere;

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this is for the ordinary reader")
    }
}

impl std::error::Error for Elsewhere {}

impl de::Error for Elsewhere {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

type Result<T> = std::result::Result<T, Elsewhere>;

/// Where in the text the reader is: in front of a line, or behind the `- ` or `key: ` that it begins with.
struct Cursor<'a> {
    /// Behind the present line.
    rest: &'a str,
    /// What is left of the present line, and how far to the right that stands.
    line: &'a str,
    indent: usize,
    ended: bool,
    depth: usize,
}

/// What stands at a place.
#[derive(Clone, Copy)]
enum Node<'a> {
    Scalar(Scalar<'a>),
    /// A mapping in braces or a sequence in brackets, without content.
    EmptyMap,
    EmptySeq,
    /// Mappings and sequences whose entries stand at this indent.
    Map(usize),
    Seq(usize),
}

#[derive(Clone, Copy)]
struct Scalar<'a> {
    text: &'a str,
    quoted: bool,
}

impl<'a> Cursor<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            rest: text,
            line: "",
            indent: 0,
            ended: false,
            depth: 0,
        }
    }

    /// Goes on to the next line.
    fn advance(&mut self) -> Result<()> {
        if self.rest.is_empty() {
            self.ended = true;
            self.line = "";
            self.indent = 0;
            return Ok(());
        }
        let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
        self.rest = rest;
        self.line = line.trim_start_matches(' ');
        self.indent = line.len() - self.line.len();
        if self.line.is_empty() || self.line.ends_with(' ') {
            return Err(Elsewhere);
        }
        Ok(())
    }

    /// The node that begins here, on the present line. A scalar is behind the cursor then.
    fn block(&mut self) -> Result<Node<'a>> {
        if self.at_item() {
            return Ok(Node::Seq(self.indent));
        }
        if key(self.line).is_some() {
            return Ok(Node::Map(self.indent));
        }
        self.inline(self.line)
    }

    /// The node that is the end of a line, which is behind the cursor then.
    fn inline(&mut self, text: &'a str) -> Result<Node<'a>> {
        let node = match text {
            "{}" => Node::EmptyMap,
            "[]" => Node::EmptySeq,
            text => Node::Scalar(scalar(text).ok_or(Elsewhere)?),
        };
        self.advance()?;
        Ok(node)
    }

    fn at_item(&self) -> bool {
        self.line.starts_with("- ")
    }

    /// Whether another entry stands at this indent. Text further to the right would belong to what is read already.
    fn goes_on(&self, indent: usize) -> Result<bool> {
        if self.indent > indent {
            return Err(Elsewhere);
        }
        Ok(!self.ended && self.indent == indent)
    }

    fn deeper(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > MOST_DEEP {
            return Err(Elsewhere);
        }
        Ok(())
    }
}

/// The key that a line begins with, and what follows: nothing, or the value. Keys are letters, digits and marks of names,
/// or quoted.
fn key(line: &str) -> Option<(Scalar<'_>, &str)> {
    let (name, after) = match line.as_bytes().first()? {
        b'"' | b'\'' => {
            let end = 1 + line[1..].find(&line[..1])?;
            (scalar(&line[..=end])?, &line[end + 1..])
        }
        b'-' => return None,
        _ => {
            let name = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
            let end = line.bytes().position(|b| !name(b))?;
            (scalar(&line[..end])?, &line[end..])
        }
    };
    let value = after.strip_prefix(':')?;
    let value = if value.is_empty() {
        value
    } else {
        value.strip_prefix(' ')?
    };
    (name.text.len() <= LONGEST_KEY).then_some((name, value))
}

/// A scalar that is a whole text and no null.
fn scalar(text: &str) -> Option<Scalar<'_>> {
    let quoted = |text| Scalar { text, quoted: true };
    let bytes = text.as_bytes();
    match bytes.first()? {
        mark @ (b'"' | b'\'') => {
            let (last, inner) = bytes[1..].split_last()?;
            let plain = inner.iter().all(|b| b != mark && *b != b'\\');
            (last == mark && plain).then(|| quoted(&text[1..text.len() - 1]))
        }
        // The mark of an item, unless something follows at once.
        b'-' if matches!(bytes.get(1), None | Some(b' ')) => None,
        b'-' | b'/' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
            // What would end a plain scalar, or make it a key.
            let ends = text.ends_with(':')
                || bytes
                    .windows(2)
                    .any(|pair| matches!(pair, b": " | b" #" | b" :"));
            let null = text.eq_ignore_ascii_case("null");
            (!ends && !null).then_some(Scalar {
                text,
                quoted: false,
            })
        }
        _ => None,
    }
}

impl<'a> Scalar<'a> {
    /// A plain decimal number as programs write it.
    fn digits(self) -> Option<&'a str> {
        let digits = self.text.strip_prefix('-').unwrap_or(self.text);
        let plain = !self.quoted
            && !digits.is_empty()
            && digits.len() <= 18
            && digits.bytes().all(|b| b.is_ascii_digit())
            && (digits == self.text || digits != "0")
            && (digits.len() == 1 || !digits.starts_with('0'));
        plain.then_some(self.text)
    }

    fn unsigned(self) -> Result<u64> {
        self.digits()
            .and_then(|text| text.parse().ok())
            .ok_or(Elsewhere)
    }

    fn signed(self) -> Result<i64> {
        self.digits()
            .and_then(|text| text.parse().ok())
            .ok_or(Elsewhere)
    }

    fn boolean(self) -> Result<bool> {
        match self.text {
            "true" if !self.quoted => Ok(true),
            "false" if !self.quoted => Ok(false),
            _ => Err(Elsewhere),
        }
    }

    /// Whether it is a text to whoever does not know what to expect.
    fn is_text(self) -> bool {
        const WORDS: [&str; 11] = [
            "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf", "infinity",
        ];
        if self.quoted {
            return true;
        }
        match self.text.as_bytes() {
            // `100m` is one, `1e3` and `0x1f` are not.
            [b'0', b'x' | b'o' | b'b', ..] => false,
            [b'0'..=b'9', ..] => self.text.parse::<f64>().is_err(),
            [b'-', b'-', ..] => true,
            [first, ..] if first.is_ascii_alphabetic() => {
                self.text.len() > 8 || !WORDS.iter().any(|w| self.text.eq_ignore_ascii_case(w))
            }
            _ => false,
        }
    }
}

struct Reader<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
    node: Node<'a>,
}

impl<'a> Reader<'_, 'a> {
    fn scalar(&self) -> Result<Scalar<'a>> {
        match self.node {
            Node::Scalar(scalar) => Ok(scalar),
            _ => Err(Elsewhere),
        }
    }
}

macro_rules! numbers {
    ($read:ident, $visit:ident: $($method:ident)*) => {
        $(fn $method<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
            visitor.$visit(self.scalar()?.$read()?)
        })*
    };
}

impl<'a> de::Deserializer<'a> for Reader<'_, 'a> {
    type Error = Elsewhere;

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        match self.node {
            Node::Scalar(scalar) => {
                if scalar.is_text() {
                    visitor.visit_borrowed_str(scalar.text)
                } else if let Ok(boolean) = scalar.boolean() {
                    visitor.visit_bool(boolean)
                } else if let Ok(number) = scalar.unsigned() {
                    visitor.visit_u64(number)
                } else {
                    visitor.visit_i64(scalar.signed()?)
                }
            }
            Node::EmptyMap | Node::Map(_) => self.deserialize_map(visitor),
            Node::EmptySeq | Node::Seq(_) => self.deserialize_seq(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_bool(self.scalar()?.boolean()?)
    }

    numbers! {
        signed, visit_i64:
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
    }
    numbers! {
        unsigned, visit_u64:
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    fn deserialize_str<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_borrowed_str(self.scalar()?.text)
    }

    fn deserialize_string<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'a>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_enum(BorrowedStrDeserializer::new(self.scalar()?.text))
    }

    fn deserialize_map<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        let cursor = self.cursor;
        let indent = match self.node {
            Node::Map(indent) => Some(indent),
            Node::EmptyMap => None,
            _ => return Err(Elsewhere),
        };
        cursor.deeper()?;
        let mut entries = Entries {
            cursor,
            indent,
            value: "",
        };
        let value = visitor.visit_map(&mut entries)?;
        entries.end()?;
        entries.cursor.depth -= 1;
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_map(visitor)
    }

    fn deserialize_seq<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        let cursor = self.cursor;
        let indent = match self.node {
            Node::Seq(indent) => Some(indent),
            Node::EmptySeq => None,
            _ => return Err(Elsewhere),
        };
        cursor.deeper()?;
        let mut items = Items { cursor, indent };
        let value = visitor.visit_seq(&mut items)?;
        if items.more()? {
            return Err(Elsewhere);
        }
        items.cursor.depth -= 1;
        Ok(value)
    }

    fn deserialize_tuple<V: Visitor<'a>>(self, _: usize, visitor: V) -> Result<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_any(visitor)
    }

    // Nothing that is stored often holds these.

    fn deserialize_i128<V: Visitor<'a>>(self, _: V) -> Result<V::Value> {
        Err(Elsewhere)
    }

    fn deserialize_u128<V: Visitor<'a>>(self, _: V) -> Result<V::Value> {
        Err(Elsewhere)
    }

    fn deserialize_f32<V: Visitor<'a>>(self, _: V) -> Result<V::Value> {
        Err(Elsewhere)
    }

    fn deserialize_f64<V: Visitor<'a>>(self, _: V) -> Result<V::Value> {
        Err(Elsewhere)
    }

    fn deserialize_char<V: Visitor<'a>>(self, _: V) -> Result<V::Value> {
        Err(Elsewhere)
    }

    fn deserialize_bytes<V: Visitor<'a>>(self, _: V) -> Result<V::Value> {
        Err(Elsewhere)
    }

    fn deserialize_byte_buf<V: Visitor<'a>>(self, _: V) -> Result<V::Value> {
        Err(Elsewhere)
    }

    fn deserialize_unit<V: Visitor<'a>>(self, _: V) -> Result<V::Value> {
        Err(Elsewhere)
    }

    fn deserialize_unit_struct<V: Visitor<'a>>(self, _: &'static str, _: V) -> Result<V::Value> {
        Err(Elsewhere)
    }

    fn deserialize_tuple_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_seq(visitor)
    }
}

/// The entries of a mapping.
struct Entries<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
    /// `None` when there are none.
    indent: Option<usize>,
    /// What follows the key that was read last.
    value: &'a str,
}

impl Entries<'_, '_> {
    fn more(&self) -> Result<bool> {
        self.indent
            .map_or(Ok(false), |indent| self.cursor.goes_on(indent))
    }

    fn end(&self) -> Result<()> {
        if self.more()? { Err(Elsewhere) } else { Ok(()) }
    }
}

impl<'a> de::MapAccess<'a> for Entries<'_, 'a> {
    type Error = Elsewhere;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        if !self.more()? {
            return Ok(None);
        }
        let (name, value) = key(self.cursor.line).ok_or(Elsewhere)?;
        self.value = value;
        let node = Node::Scalar(name);
        let cursor = &mut *self.cursor;
        seed.deserialize(Reader { cursor, node }).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value> {
        let cursor = &mut *self.cursor;
        let indent = self.indent.ok_or(Elsewhere)?;
        let node = if self.value.is_empty() {
            cursor.advance()?;
            let within = cursor.indent > indent || (cursor.indent == indent && cursor.at_item());
            if cursor.ended || !within {
                // Nothing, which is a null.
                return Err(Elsewhere);
            }
            match cursor.block()? {
                // A scalar on the next line may go on on the one after it.
                Node::Scalar(_) | Node::EmptyMap | Node::EmptySeq => return Err(Elsewhere),
                node => node,
            }
        } else {
            cursor.inline(self.value)?
        };
        seed.deserialize(Reader { cursor, node })
    }
}

/// The items of a sequence.
struct Items<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
    /// `None` when there are none.
    indent: Option<usize>,
}

impl Items<'_, '_> {
    fn more(&self) -> Result<bool> {
        match self.indent {
            Some(indent) => Ok(self.cursor.goes_on(indent)? && self.cursor.at_item()),
            None => Ok(false),
        }
    }
}

impl<'a> de::SeqAccess<'a> for Items<'_, 'a> {
    type Error = Elsewhere;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        if !self.more()? {
            return Ok(None);
        }
        let cursor = &mut *self.cursor;
        cursor.line = &cursor.line["- ".len()..];
        cursor.indent += "- ".len();
        let node = cursor.block()?;
        seed.deserialize(Reader { cursor, node }).map(Some)
    }

    /// Exact, so that what is kept of thousands of documents has no room for items that there are not: a list that grows
    /// begins with room for four.
    fn size_hint(&self) -> Option<usize> {
        let Some(indent) = self.indent else {
            return Some(0);
        };
        let more = self.cursor.rest.split('\n').map_while(|line| {
            let text = line.trim_start_matches(' ');
            match (line.len() - text.len()).cmp(&indent) {
                Ordering::Less => None,
                Ordering::Equal => text.starts_with("- ").then_some(1),
                Ordering::Greater => Some(0),
            }
        });
        Some(1 + more.sum::<usize>())
    }
}

#[cfg(test)]
mod tests;
