//! YAML text → a tree of mappings, sequences and scalars in which every node knows its line.
//!
//! Scalars stay text as it stands in the file, so that an account id of digits is not turned into a number on the way.
//! Aliases and merge keys are expanded by the YAML reader within its default budget.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Spanned, UserMessageFormatter};

use super::error::Problem;

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
    let options = serde_saphyr::options! {
        with_snippet: false,
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::PassThrough,
    };
    match serde_saphyr::from_str_with_options::<Option<Spanned<Raw>>>(text, options) {
        Ok(Some(spanned)) => Ok(node(spanned, text)),
        Ok(None) => Ok(Node { line: 1, value: Value::Null }),
        Err(error) => {
            let line = error.location().map(|location| location.line());
            let message = error.without_snippet().render_with_formatter(&UserMessageFormatter);
            let message = message.lines().next().unwrap_or_default();
            // The line is in the place already.
            let message = message.split(" at line ").next().unwrap_or_default();
            Err(Problem {
                place: super::error::Place::File { file: file.to_owned(), line },
                key: String::new(),
                problem: format!("this is not valid YAML: {message}"),
                remedy: "check indentation (spaces, no tabs), colons and quotes near this line".to_owned(),
            })
        }
    }
}

/// A node as the YAML reader hands it over; numbers and the like are looked up in the text by their position.
enum Raw {
    Null,
    Text(String),
    /// A plain scalar that looks like a number or a truth value, in the reader's own spelling.
    Typed(String),
    Sequence(Vec<Spanned<Raw>>),
    Mapping(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn node(spanned: Spanned<Raw>, text: &str) -> Node {
    let line = spanned.referenced.line();
    let value = match spanned.value {
        Raw::Null => Value::Null,
        Raw::Text(scalar) => Value::Scalar(scalar),
        Raw::Typed(spelling) => {
            let span = spanned.defined.span();
            let written = span.byte_offset().zip(span.byte_len()).and_then(|(offset, len)| {
                let start = usize::try_from(offset).ok()?;
                text.get(start..start.checked_add(usize::try_from(len).ok()?)?)
            });
            Value::Scalar(written.map_or(spelling, |written| written.trim().to_owned()))
        }
        Raw::Sequence(items) => Value::Sequence(items.into_iter().map(|item| node(item, text)).collect()),
        Raw::Mapping(entries) => {
            let entry = |(key, value): (Spanned<String>, _)| Entry {
                line: key.referenced.line(),
                key: key.value,
                node: node(value, text),
            };
            Value::Mapping(entries.into_iter().map(entry).collect())
        }
    };
    Node { line, value }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any YAML value")
            }

            fn visit_unit<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }

            fn visit_none<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
                Raw::deserialize(deserializer)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
                Ok(Raw::Typed(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
                Ok(Raw::Typed(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
                Ok(Raw::Typed(value.to_string()))
            }

            fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
                Ok(Raw::Typed(value.to_string()))
            }

            fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
                Ok(Raw::Typed(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
                Ok(Raw::Typed(value.to_string()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
                Ok(Raw::Text(value.to_owned()))
            }

            fn visit_string<E>(self, value: String) -> Result<Raw, E> {
                Ok(Raw::Text(value))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
                let mut sequence = Vec::new();
                while let Some(item) = items.next_element()? {
                    sequence.push(item);
                }
                Ok(Raw::Sequence(sequence))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
                let mut mapping = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    mapping.push(entry);
                }
                Ok(Raw::Mapping(mapping))
            }
        }

        deserializer.deserialize_any(Any)
    }
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
}
