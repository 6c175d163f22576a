//! YAML text becomes a tree of nodes.
//!
//! Faults of one value (a key twice, a variable that is not set) are collected and composing goes on;
//! faults of the structure end it, because nothing after them can be trusted. Anchors are copied where
//! they are used, under bounds, so that ten lines cannot become a gigabyte. Merge keys (`<<`) are not
//! part of YAML 1.2 and are refused by name.

mod syntax;

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::Value;

use super::Lookup;
use super::fault::{FAULTS_MAX, Fault, Position};
use super::node::{Entry, Kind, Node, Scalar};
use super::scalar;
use super::source::Source;
use super::substitution::{self, Replaced, Trouble};
use super::trail::Trail;

// Bound: a fleet of ten thousand instances has fewer; what aliases repeat counts each time.
const NODES_MAX: usize = 100_000;
// Bound: four times the largest file, for what aliases and the environment add.
pub(super) const TEXT_MAX: usize = 16 << 20;
// Bound: the deepest setting is below ten; walking is recursive, and the stack is not endless.
const DEPTH_MAX: usize = 64;
// Bound: no name of anything is longer.
const KEY_MAX: usize = 1024;

/// Composes the one document of a file: its root, and the faults of single values in it.
///
/// # Errors
/// The faults so far and, last, the one that made going on impossible.
pub(super) fn compose(source: &Source, lookup: Lookup<'_>) -> Result<(Node, Vec<Fault>), Vec<Fault>> {
    let mut composer = Composer {
        parser: Parser::new_from_str(source.text()),
        source,
        lookup,
        anchors: HashMap::new(),
        nodes: 0,
        text: 0,
        faults: Vec::new(),
    };
    match composer.document() {
        Ok(root) => Ok((root, composer.faults)),
        Err(fault) => {
            composer.faults.push(fault);
            Err(composer.faults)
        }
    }
}

struct Composer<'a> {
    parser: Parser<'a, StrInput<'a>>,
    source: &'a Source,
    lookup: Lookup<'a>,
    anchors: HashMap<usize, Rc<Anchor>>,
    nodes: usize,
    text: usize,
    faults: Vec<Fault>,
}

/// A named node, with what each use of it costs.
struct Anchor {
    node: Node,
    nodes: usize,
    text: usize,
}

type Properties<'a> = Option<Cow<'a, Tag>>;

// === impl Composer ===

impl<'a> Composer<'a> {
    fn document(&mut self) -> Result<Node, Fault> {
        let start = Position { line: 1, column: 1 };
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(_) if root.is_some() => {
                    let message = "a second document; a configuration is one document";
                    return Err(self.end(span, &Trail::Root, message));
                }
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
                Event::Nothing => {}
                event => root = Some(self.node(event, span, &Trail::Root, 0)?),
            }
        }
        let empty = || Node { position: start, kind: Kind::Map(Vec::new()) };
        let root = root.unwrap_or_else(empty);
        match &root.kind {
            // A file of comments alone is a file that sets nothing.
            Kind::Scalar(scalar) if scalar.value.is_null() => Ok(empty()),
            _ => Ok(root),
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Fault> {
        let end = || (Event::StreamEnd, Span::default());
        let next = self.parser.next_event().unwrap_or_else(|| Ok(end()));
        next.map_err(|error| {
            let at = self.source.within(position(error.marker()));
            syntax::fault(self.source, at, error.info())
        })
    }

    fn node(&mut self, event: Event<'a>, span: Span, trail: &Trail<'_>, depth: usize) -> Result<Node, Fault> {
        if depth > DEPTH_MAX {
            return Err(self.end(span, trail, too_deep()));
        }
        let before = (self.nodes, self.text);
        self.spend(span, trail, 1, 0)?;
        let (anchor, node) = match event {
            Event::Alias(anchor) => return self.alias(anchor, span, trail, depth),
            Event::Scalar(text, style, anchor, tag) => (anchor, self.scalar(&text, style, tag, span, trail)?),
            Event::SequenceStart(anchor, tag) => {
                self.expect_tag(tag, "seq", span, trail);
                (anchor, self.list(span, trail, depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                self.expect_tag(tag, "map", span, trail);
                (anchor, self.map(span, trail, depth)?)
            }
            _ => return Err(self.end(span, trail, "a value is missing here")),
        };
        if anchor > 0 {
            let (nodes, text) = (self.nodes - before.0, self.text - before.1);
            // The kept copy counts too, or a ladder of anchors would hold far more than the bound.
            self.spend(span, trail, nodes, text)?;
            let node = node.clone();
            let kept = Rc::new(Anchor { node, nodes, text });
            self.anchors.insert(anchor, kept);
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, span: Span, trail: &Trail<'_>, depth: usize) -> Result<Node, Fault> {
        let Some(anchor) = self.anchors.get(&anchor).map(Rc::clone) else {
            let message = "this alias stands inside the value that it names";
            return Err(self.end(span, trail, message));
        };
        if depth + anchor.node.height() > DEPTH_MAX {
            return Err(self.end(span, trail, too_deep()));
        }
        // Counted before copying: refusing afterwards would be too late.
        self.spend(span, trail, anchor.nodes, anchor.text)?;
        let mut node = anchor.node.clone();
        node.position = self.place(span);
        Ok(node)
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        tag: Properties<'_>,
        span: Span,
        trail: &Trail<'_>,
    ) -> Result<Node, Fault> {
        let at = self.place(span);
        let replaced = match substitution::substitute(text, self.lookup) {
            Ok(replaced) => replaced,
            Err(troubles) => {
                self.unresolved(troubles, span, trail);
                return Ok(Node { position: at, kind: Kind::Unknown });
            }
        };
        let (value, written) = match replaced {
            None => (text.to_owned(), None),
            Some(Replaced { text: value, from_environment }) => (value, from_environment.then(|| text.to_owned())),
        };
        self.spend(span, trail, 0, value.len() + written.as_ref().map_or(0, String::len))?;
        let kind = match self.read(&value, style, tag) {
            Ok(read) => Kind::Scalar(Scalar { value: read, text: value, written }),
            Err(message) => {
                self.tell(Fault::new(trail.to_string(), Some(at), message));
                Kind::Unknown
            }
        };
        Ok(Node { position: at, kind })
    }

    /// Tells of each reference of a scalar at the place of its `${`.
    fn unresolved(&mut self, troubles: Vec<Trouble>, span: Span, trail: &Trail<'_>) {
        let source = self.source;
        let start = self.place(span);
        let bytes = source.offset(start).zip(source.offset(source.within(position(&span.end))));
        let (first, written) =
            bytes.and_then(|(from, to)| Some((from, source.text().get(from..to)?))).unwrap_or_default();
        let places: Vec<usize> = written.match_indices("${").map(|(at, _)| first + at).collect();
        for Trouble { ordinal, message, suggestion } in troubles {
            // Without its place (an escape sequence made the `${`) the scalar's will do.
            let at = places.get(ordinal).map_or(start, |offset| source.position(*offset));
            self.tell(Fault::new(trail.to_string(), Some(at), message).suggesting(suggestion));
        }
    }

    /// What a scalar means, by its tag, its quotes or its look.
    fn read(&self, text: &str, style: ScalarStyle, tag: Properties<'_>) -> Result<Value, String> {
        let wanted = match tag.as_deref() {
            None if style == ScalarStyle::Plain => return Ok(scalar::resolve(text)?),
            None => return Ok(Value::String(text.to_owned())),
            Some(tag) if tag.is_yaml_core_schema() => tag.suffix.as_str(),
            Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => "str",
            Some(tag) => return Err(unknown_tag(tag)),
        };
        let value = scalar::resolve(text)?;
        match (wanted, &value) {
            ("str", _) => Ok(Value::String(text.to_owned())),
            ("null", Value::Null) | ("bool", Value::Bool(_)) | ("float", Value::Number(_)) => Ok(value),
            ("int", Value::Number(number)) if !number.is_f64() => Ok(value),
            ("null" | "bool" | "float" | "int", _) => Err(format!("tagged `!!{wanted}` but not written as one")),
            _ => Err(format!("the tag `!!{}` is not known here", wanted.escape_debug())),
        }
    }

    fn list(&mut self, span: Span, trail: &Trail<'_>, depth: usize) -> Result<Node, Fault> {
        let position = self.place(span);
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                let kind = Kind::List(items);
                return Ok(Node { position, kind });
            }
            let here = Trail::Index(trail, items.len());
            items.push(self.node(event, span, &here, depth + 1)?);
        }
    }

    fn map(&mut self, span: Span, trail: &Trail<'_>, depth: usize) -> Result<Node, Fault> {
        let position = self.place(span);
        let mut entries: Vec<Entry> = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                let kind = Kind::Map(entries);
                return Ok(Node { position, kind });
            }
            let key_position = self.place(span);
            let key = self.key(event, span, trail, depth)?;
            let (event, span) = self.next()?;
            let here = Trail::Key(trail, key.as_deref().unwrap_or_default());
            let mut node = self.node(event, span, &here, depth + 1)?;
            // A value on a later line, or none at all, is looked for at its key.
            if node.position.line != key_position.line || span.is_empty() {
                node.position = key_position;
            }
            let Some(key) = key else { continue };
            match lines.get(&key) {
                Some(line) => {
                    let message = format!("this key is here twice; the first is on line {line}");
                    let path = Trail::Key(trail, &key).to_string();
                    self.tell(Fault::new(path, Some(key_position), message));
                }
                None => {
                    lines.insert(key.clone(), key_position.line);
                    entries.push(Entry { key, key_position, node });
                }
            }
        }
    }

    /// The text of a key; `None`, with the fault told, if it cannot be one.
    fn key(&mut self, event: Event<'a>, span: Span, trail: &Trail<'_>, depth: usize) -> Result<Option<String>, Fault> {
        let message = match event {
            Event::Scalar(text, style, 0, None) => {
                self.spend(span, trail, 0, text.len())?;
                match text.chars().count() {
                    count if count > KEY_MAX => {
                        format!("a key of {count} characters; at most {KEY_MAX} are read")
                    }
                    _ if text == "<<" && style == ScalarStyle::Plain => {
                        "merge keys (`<<`) are not part of YAML 1.2; write the keys out".to_owned()
                    }
                    _ => return Ok(Some(text.into_owned())),
                }
            }
            other => {
                self.node(other, span, trail, depth + 1)?;
                "a key must be plain text".to_owned()
            }
        };
        let at = self.place(span);
        self.tell(Fault::new(trail.to_string(), Some(at), message));
        Ok(None)
    }

    fn expect_tag(&mut self, tag: Properties<'_>, wanted: &str, span: Span, trail: &Trail<'_>) {
        let Some(tag) = tag else { return };
        if !(tag.is_yaml_core_schema() && tag.suffix == wanted) {
            let at = self.place(span);
            self.tell(Fault::new(trail.to_string(), Some(at), unknown_tag(&tag)));
        }
    }

    fn spend(&mut self, span: Span, trail: &Trail<'_>, nodes: usize, text: usize) -> Result<(), Fault> {
        self.nodes += nodes;
        self.text += text;
        let message = if self.nodes > NODES_MAX {
            format!("more than {NODES_MAX} values, counting what aliases repeat")
        } else if self.text > TEXT_MAX {
            let mib = TEXT_MAX >> 20;
            format!("more than {mib} MiB of text, counting what aliases and variables bring in")
        } else {
            return Ok(());
        };
        Err(self.end(span, trail, message))
    }

    fn tell(&mut self, fault: Fault) {
        // One more than is shown, so that `Faults` can say that there were more.
        if self.faults.len() <= FAULTS_MAX {
            self.faults.push(fault);
        }
    }

    fn end(&self, span: Span, trail: &Trail<'_>, message: impl Into<String>) -> Fault {
        Fault::new(trail.to_string(), Some(self.place(span)), message)
    }

    fn place(&self, span: Span) -> Position {
        self.source.within(position(&span.start))
    }
}

fn position(marker: &Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}

fn unknown_tag(tag: &Tag) -> String {
    format!("the tag `{}` is not known here", tag.to_string().escape_debug())
}

fn too_deep() -> String {
    format!("more than {DEPTH_MAX} levels deep")
}
