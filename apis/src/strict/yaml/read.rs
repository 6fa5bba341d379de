//! From the parser's events to a tree as it was written, aliases and all.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::{DEPTH, Fault, Place};

pub(super) struct Raw {
    pub(super) kind: RawKind,
    pub(super) at: Place,
    pub(super) range: Range<usize>,
}

pub(super) enum RawKind {
    Scalar {
        text: String,
        plain: bool,
        tag: Option<String>,
    },
    List(Vec<Rc<Raw>>),
    Map(Vec<(Rc<Raw>, Rc<Raw>)>),
    Alias(Rc<Raw>),
}

/// Saphyr counts characters; this finds their bytes.
struct Offsets(Option<Vec<usize>>, usize);

impl Offsets {
    fn new(text: &str) -> Self {
        let table = (!text.is_ascii()).then(|| text.char_indices().map(|(i, _)| i).collect());
        Self(table, text.len())
    }

    fn byte(&self, index: usize) -> usize {
        match &self.0 {
            None => index.min(self.1),
            Some(table) => table.get(index).copied().unwrap_or(self.1),
        }
    }

    fn range(&self, span: &Span) -> Range<usize> {
        let start = self.byte(span.start.index());
        start..self.byte(span.end.index()).max(start)
    }
}

fn place(marker: &saphyr_parser::Marker) -> Place {
    Place {
        line: marker.line(),
        column: marker.col() + 1,
    }
}

/// A collection that is being read.
struct Open {
    anchor: usize,
    at: Place,
    start: usize,
    items: Vec<Rc<Raw>>,
    map: bool,
}

pub(super) fn read(text: &str) -> Result<Option<(Rc<Raw>, bool)>, Fault> {
    let offsets = Offsets::new(text);
    let mut parser = Parser::new_from_str(text);
    let mut anchors: HashMap<usize, Rc<Raw>> = HashMap::new();
    let mut open: Vec<Open> = Vec::new();
    let mut root: Option<Rc<Raw>> = None;
    let mut indirect = false;
    let fault = |at, message: &str| Fault {
        at,
        path: String::new(),
        message: message.into(),
    };
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|e| {
            fault(
                place(e.marker()),
                &format!("the YAML cannot be read: {}", e.info()),
            )
        })?;
        let (at, range) = (place(&span.start), offsets.range(&span));
        let (done, anchor) = match event {
            Event::Scalar(value, style, anchor, tag) => {
                let tag = tag.map(|t| t.to_string());
                indirect |= tag.is_some();
                let plain = style == ScalarStyle::Plain;
                (
                    Raw {
                        kind: RawKind::Scalar {
                            text: value.into_owned(),
                            plain,
                            tag,
                        },
                        at,
                        range,
                    },
                    anchor,
                )
            }
            Event::SequenceStart(anchor, tag) => {
                indirect |= tag.is_some();
                open.push(Open {
                    anchor,
                    at,
                    start: range.start,
                    items: Vec::new(),
                    map: false,
                });
                check_depth(&open, at)?;
                continue;
            }
            Event::MappingStart(anchor, tag) => {
                indirect |= tag.is_some();
                open.push(Open {
                    anchor,
                    at,
                    start: range.start,
                    items: Vec::new(),
                    map: true,
                });
                check_depth(&open, at)?;
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(o) = open.pop() else { continue };
                // A bracket has a length; a block collection ends where its last item does.
                let last = o.items.last().map_or(range.start, |i| i.range.end);
                let end = if range.is_empty() { last } else { range.end };
                let range = o.start..end.max(o.start);
                let kind = if o.map {
                    let mut items = o.items.into_iter();
                    let mut pairs = Vec::new();
                    while let (Some(k), Some(v)) = (items.next(), items.next()) {
                        pairs.push((k, v));
                    }
                    RawKind::Map(pairs)
                } else {
                    RawKind::List(o.items)
                };
                (
                    Raw {
                        kind,
                        at: o.at,
                        range,
                    },
                    o.anchor,
                )
            }
            Event::Alias(id) => {
                indirect = true;
                let Some(target) = anchors.get(&id) else {
                    return Err(fault(at, "this alias refers to something that contains it"));
                };
                (
                    Raw {
                        kind: RawKind::Alias(target.clone()),
                        at,
                        range,
                    },
                    0,
                )
            }
            Event::DocumentStart(_) if root.is_some() => {
                return Err(fault(
                    at,
                    "a second document begins here: put a line with --- before it",
                ));
            }
            _ => continue,
        };
        let done = Rc::new(done);
        if anchor != 0 {
            indirect = true;
            anchors.insert(anchor, done.clone());
        }
        match open.last_mut() {
            Some(o) => o.items.push(done),
            None => root = Some(done),
        }
    }
    Ok(root.map(|r| (r, indirect)))
}

fn check_depth(open: &[Open], at: Place) -> Result<(), Fault> {
    if open.len() > DEPTH {
        return Err(Fault {
            at,
            path: String::new(),
            message: format!("nested more than {DEPTH} levels deep"),
        });
    }
    Ok(())
}
