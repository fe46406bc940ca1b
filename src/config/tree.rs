//! YAML text → a tree of mappings, sequences and scalars in which every node knows its line.
//!
//! Scalars stay text as it stands in the file, so that an account id of digits is not turned into a number on the way.
//! Aliases are replaced by what they name, merge keys (`<<`) by the entries that the mapping does not have itself.
//! Bounds: [`DEPTH_MAX`] levels, [`NODES_MAX`] nodes, aliases and merged entries written out.

use std::collections::HashMap;
use std::iter;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, StrInput};

use super::error::{Place, Problem};

/// Levels of nesting.
const DEPTH_MAX: usize = 32;
/// Nodes in all: far beyond any configuration, and what keeps aliases of aliases from growing without end.
const NODES_MAX: usize = 20_000;

/// A node and the line on which it begins, counted from 1.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) line: u64,
    pub(super) value: Value,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// `key:` with nothing behind it, `~` or `null`.
    Null,
    /// Any plain or quoted scalar.
    Scalar(String),
    /// In the order of the file.
    Sequence(Vec<Node>),
    /// In the order of the file; keys are unique.
    Mapping(Vec<Entry>),
}

/// One `key: value` of a mapping.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: u64,
    pub(super) node: Node,
}

/// Reads a whole document. An empty one is `Null`. `file` names the text in the problem.
pub(super) fn parse(text: &str, file: &str) -> Result<Node, Problem> {
    Builder::new(text).document().map_err(|fault| Problem {
        place: Place::File { file: file.to_owned(), line: Some(fault.line) },
        key: String::new(),
        problem: format!("this is not valid YAML: {}", fault.message),
        remedy: "check indentation (spaces, no tabs), colons and quotes near this line".to_owned(),
    })
}

/// What is wrong, and on which line.
struct Fault {
    line: u64,
    message: String,
}

impl Fault {
    fn new(line: u64, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

impl From<ScanError> for Fault {
    fn from(error: ScanError) -> Self {
        Self::new(line_of(error.marker()), error.info())
    }
}

fn line_of(marker: &granit_parser::Marker) -> u64 {
    u64::try_from(marker.line()).unwrap_or(u64::MAX)
}

/// Puts the parser's events together.
struct Builder<'text> {
    parser: Parser<'text, StrInput<'text>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    line: u64,
}

impl<'text> Builder<'text> {
    fn new(text: &'text str) -> Self {
        let options = granit_parser::options! {
            emit_comments: false,
            block_nesting_limit: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
        };
        let parser = Parser::new_from_str_with_options(text, options);
        Self { parser, anchors: HashMap::new(), nodes: 0, line: 1 }
    }

    /// The next event; its line is in `self.line`.
    fn event(&mut self) -> Result<Event<'text>, Fault> {
        let Some(next) = self.parser.next_event() else {
            return Err(Fault::new(self.line, "the text ends too early"));
        };
        let (event, span) = next?;
        self.line = line_of(&span.start);
        Ok(event)
    }

    fn document(mut self) -> Result<Node, Fault> {
        let mut root = None;
        loop {
            match self.event()? {
                Event::StreamEnd => return Ok(root.unwrap_or(Node { line: 1, value: Value::Null })),
                Event::DocumentStart(..) if root.is_some() => {
                    return Err(Fault::new(self.line, "a second document begins here"));
                }
                event if event.is_node() => root = Some(self.node(event)?),
                _ => {}
            }
        }
    }

    /// The node that begins with `event`.
    fn node(&mut self, event: Event<'text>) -> Result<Node, Fault> {
        let line = self.line;
        self.count(1, line)?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_null = style == ScalarStyle::Plain && tag.is_none() && is_null(&text);
                (if is_null { Value::Null } else { Value::Scalar(text.into_owned()) }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (Value::Sequence(self.sequence()?), anchor),
            Event::MappingStart(_, anchor, _) => (Value::Mapping(self.mapping()?), anchor),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(Fault::new(line, "an alias stands inside of what it names"));
                };
                self.count(size(&node), line)?;
                return Ok(Node { line, ..node });
            }
            _ => return Err(Fault::new(line, "a value is missing")),
        };
        let node = Node { line, value };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn count(&mut self, nodes: usize, line: u64) -> Result<(), Fault> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES_MAX { Err(Fault::new(line, format!("more than {NODES_MAX} values"))) } else { Ok(()) }
    }

    fn sequence(&mut self) -> Result<Vec<Node>, Fault> {
        let mut items = Vec::new();
        loop {
            match self.event()? {
                Event::SequenceEnd => return Ok(items),
                event => items.push(self.node(event)?),
            }
        }
    }

    fn mapping(&mut self) -> Result<Vec<Entry>, Fault> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged = Vec::new();
        loop {
            let event = self.event()?;
            let line = self.line;
            let (key, is_merge) = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, style, ..) => {
                    let is_merge = style == ScalarStyle::Plain && text == "<<";
                    (text.into_owned(), is_merge)
                }
                _ => return Err(Fault::new(line, "a key that is not a plain word")),
            };
            let event = self.event()?;
            let node = self.node(event)?;
            if is_merge {
                merged.push(node);
            } else if entries.iter().any(|entry| entry.key == key) {
                return Err(Fault::new(line, format!("duplicate mapping key `{key}` is not allowed here")));
            } else {
                entries.push(Entry { key, line, node });
            }
        }
        for node in merged {
            self.merge(node, &mut entries)?;
        }
        Ok(entries)
    }

    /// Adds the entries of a mapping, or of several, whose keys are not there yet (yaml.org/type/merge.html).
    fn merge(&mut self, node: Node, entries: &mut Vec<Entry>) -> Result<(), Fault> {
        let line = node.line;
        let mappings = match node.value {
            Value::Sequence(items) => items,
            value => vec![Node { line, value }],
        };
        for mapping in mappings {
            let Value::Mapping(further) = mapping.value else {
                return Err(Fault::new(line, "only mappings can be merged"));
            };
            for entry in further {
                if !entries.iter().any(|present| present.key == entry.key) {
                    entries.push(entry);
                }
            }
        }
        Ok(())
    }
}

/// How many nodes there are in a tree.
fn size(node: &Node) -> usize {
    match &node.value {
        Value::Null | Value::Scalar(_) => 1,
        Value::Sequence(items) => iter::once(1).chain(items.iter().map(size)).sum(),
        Value::Mapping(entries) => iter::once(1).chain(entries.iter().map(|entry| size(&entry.node))).sum(),
    }
}

/// YAML 1.2.2 §10.3.2.
fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// One line per leaf: `path @line = value`.
    fn listing(node: &Node, path: &str, out: &mut Vec<String>) {
        match &node.value {
            Value::Null => out.push(format!("{path} @{} null", node.line)),
            Value::Scalar(text) => out.push(format!("{path} @{} = {text}", node.line)),
            Value::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    listing(item, &format!("{path}[{index}]"), out);
                }
            }
            Value::Mapping(entries) => {
                for entry in entries {
                    listing(&entry.node, &format!("{path}/{}:{}", entry.key, entry.line), out);
                }
            }
        }
    }

    fn list(text: &str) -> Vec<String> {
        let mut out = Vec::new();
        listing(&parse(text, "t.yml").unwrap(), "", &mut out);
        out
    }

    #[test]
    fn every_key_and_value_knows_its_line() {
        assert_eq!(
            list("# comment\na:\n  b: x\n  c:\n    - 1\n    - y\nd:\n"),
            ["/a:2/b:3 @3 = x", "/a:2/c:4[0] @5 = 1", "/a:2/c:4[1] @6 = y", "/d:7 @7 null"]
        );
    }

    #[test]
    fn scalars_are_kept_as_they_are_written() {
        assert_eq!(
            list(
                "id: 00123456789012345678901234567890\nexp: 1234e5678\nhex: 0xff\nquoted: \"007\"\nyes_: yes\nfloat: 1.50\n\
                 under: 1_000\nlisten: 0.0.0.0:8000\nlast: 12 # comment\n"
            ),
            [
                "/id:1 @1 = 00123456789012345678901234567890",
                "/exp:2 @2 = 1234e5678",
                "/hex:3 @3 = 0xff",
                "/quoted:4 @4 = 007",
                "/yes_:5 @5 = yes",
                "/float:6 @6 = 1.50",
                "/under:7 @7 = 1_000",
                "/listen:8 @8 = 0.0.0.0:8000",
                "/last:9 @9 = 12",
            ]
        );
    }

    #[test]
    fn positions_hold_after_text_that_is_not_ascii() {
        assert_eq!(list("navn: Gjest på lufta\nid: 0012\n"), ["/navn:1 @1 = Gjest på lufta", "/id:2 @2 = 0012"]);
    }

    #[test]
    fn an_empty_file_is_an_empty_configuration() {
        for text in ["", "\n", "# only a comment\n", "---\n"] {
            assert!(matches!(parse(text, "t.yml").unwrap().value, Value::Null), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_yaml_is_one_line_that_names_the_place() {
        for (text, beginning) in [
            ("a: 1\nb: [\n", "t.yml:2: this is not valid YAML: unclosed bracket"),
            ("a: 1\n\tb: 2\n", "t.yml:1: this is not valid YAML: while scanning a plain scalar, found a tab;"),
            ("a: 1\na: 2\n", "t.yml:2: this is not valid YAML: duplicate mapping key `a` is not allowed here;"),
            ("a: \"x\n", "t.yml:1: this is not valid YAML: unclosed quote;"),
        ] {
            let problem = parse(text, "t.yml").unwrap_err().to_string();
            assert!(problem.starts_with(beginning), "{problem}");
            assert!(!problem.contains('\n'), "{problem}");
        }
    }

    #[test]
    fn aliases_and_merge_keys_are_written_out() {
        assert_eq!(
            list("base: &base {a: 1, b: 2}\nuse:\n  <<: *base\n  b: 3\nagain: *base\nboth: {<<: [*base, {c: 4}]}\n"),
            [
                "/base:1/a:1 @1 = 1",
                "/base:1/b:1 @1 = 2",
                "/use:2/b:4 @4 = 3",
                "/use:2/a:1 @1 = 1",
                "/again:5/a:1 @1 = 1",
                "/again:5/b:1 @1 = 2",
                "/both:6/a:1 @1 = 1",
                "/both:6/b:1 @1 = 2",
                "/both:6/c:6 @6 = 4",
            ]
        );
    }

    #[test]
    fn nothing_grows_or_nests_without_end() {
        // Nine levels of ten aliases each: a thousand million nodes, written out. The first four make 12374.
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let alias = format!("*a{}", level - 1);
            laughs.push_str(&format!("a{level}: &a{level} [{}]\n", vec![alias; 10].join(", ")));
        }
        for (text, beginning) in [
            (laughs, "t.yml:5: this is not valid YAML: more than 20000 values"),
            (format!("a: {}", "[".repeat(100)), "t.yml:1: this is not valid YAML: "),
            ("a: &a [*a]\n".to_owned(), "t.yml:1: this is not valid YAML: an alias stands inside"),
            ("a: *b\n".to_owned(), "t.yml:1: this is not valid YAML: "),
            ("a: 1\n---\nb: 2\n".to_owned(), "t.yml:2: this is not valid YAML: a second document"),
            ("<<: 1\n".to_owned(), "t.yml:1: this is not valid YAML: only mappings can be merged"),
            ("? [a]\n: 1\n".to_owned(), "t.yml:1: this is not valid YAML: a key that is not a plain word"),
        ] {
            let problem = parse(&text, "t.yml").unwrap_err().to_string();
            assert!(problem.starts_with(beginning), "{problem}");
        }
    }
}
