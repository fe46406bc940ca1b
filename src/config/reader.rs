//! Takes values out of the YAML tree and the environment, and collects what is wrong with them instead of stopping at
//! the first.
//!
//! A key `listen` of our section `http` is overridden by the environment variable `GUEST_RELAY_HTTP_LISTEN`; an empty
//! variable counts as unset.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::error::{Place, Problem};
use super::notice::Notice;
use super::tree::{Entry, Node, Value};

/// What every override of ours begins with.
const ENVIRONMENT_PREFIX: &str = "GUEST_RELAY";

/// Looks up an environment variable.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(super) struct Reader<'a> {
    file: String,
    environment: Environment<'a>,
    pub(super) problems: Vec<Problem>,
    /// What an operator should know although nothing is wrong.
    pub(super) notices: Vec<Notice>,
}

/// A section of the file, out of which values are taken key by key.
pub(super) struct Section {
    name: &'static str,
    entries: Vec<Entry>,
    known: Vec<&'static str>,
}

/// A scalar and where it stands.
pub(super) struct Found {
    pub(super) text: String,
    pub(super) place: Place,
    pub(super) key: String,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &str, environment: Environment<'a>) -> Self {
        Self { file: file.to_owned(), environment, problems: Vec::new(), notices: Vec::new() }
    }

    /// The variable's value, unless it is unset or empty.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name).filter(|value| !value.trim().is_empty())
    }

    pub(super) fn line(&self, line: u64) -> Place {
        Place::File { file: self.file.clone(), line: Some(line) }
    }

    pub(super) fn problem(
        &mut self,
        place: Place,
        key: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.problems.push(Problem { place, key: key.into(), problem: problem.into(), remedy: remedy.into() });
    }

    pub(super) fn notice(&mut self, finding: impl Into<String>) {
        self.notices.push(Notice::new(finding));
    }

    /// The entries of a mapping; nothing for a missing value, a problem for anything else.
    pub(super) fn entries(&mut self, node: Node, key: &str) -> Vec<Entry> {
        match node.value {
            Value::Mapping(entries) => entries,
            Value::Null => Vec::new(),
            _ => {
                let place = self.line(node.line);
                self.problem(place, key, "this is not a section", format!("write '{key}:' and indented keys below it"));
                Vec::new()
            }
        }
    }

    /// Takes a section out of the entries of the file.
    pub(super) fn section(&mut self, root: &mut Vec<Entry>, name: &'static str) -> Section {
        let entry = root.iter().position(|entry| entry.key == name).map(|at| root.remove(at));
        let entries = entry.map(|entry| self.entries(entry.node, name)).unwrap_or_default();
        Section { name, entries, known: Vec::new() }
    }

    /// Takes a node out of a section.
    pub(super) fn node(&mut self, section: &mut Section, key: &'static str) -> Option<Node> {
        section.known.push(key);
        let at = section.entries.iter().position(|entry| entry.key == key)?;
        Some(section.entries.remove(at).node)
    }

    /// Takes a scalar out of a section; `variable` overrides it. A missing or empty value is `None`.
    pub(super) fn found(&mut self, section: &mut Section, key: &'static str, variable: Option<&str>) -> Option<Found> {
        let path = format!("{}.{key}", section.name);
        let node = self.node(section, key);
        if let Some(variable) = variable
            && let Some(text) = self.variable(variable)
        {
            let place = Place::Environment { variable: variable.to_owned() };
            return Some(Found { text: text.trim().to_owned(), place, key: path });
        }
        let node = node?;
        let place = self.line(node.line);
        match node.value {
            Value::Scalar(text) if text.trim().is_empty() => None,
            Value::Scalar(text) => Some(Found { text: text.trim().to_owned(), place, key: path }),
            Value::Null => None,
            Value::Sequence(_) | Value::Mapping(_) => {
                self.problem(place, path, "this is not a single value", format!("write '{key}: value' on one line"));
                None
            }
        }
    }

    /// The scalar of one of our keys, which may be overridden from the environment.
    pub(super) fn ours(&mut self, section: &mut Section, key: &'static str) -> Option<Found> {
        let variable = override_of(section.name, key);
        self.found(section, key, Some(&variable))
    }

    /// One of our keys, read by `parse`, or the default when it is missing or wrong.
    pub(super) fn parsed<T, E: Display>(
        &mut self,
        section: &mut Section,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, E>,
        remedy: &str,
    ) -> T {
        let Some(found) = self.ours(section, key) else {
            return default;
        };
        self.parse_found(found, parse, remedy).unwrap_or(default)
    }

    /// Reads what was found, or notes why it cannot be read.
    pub(super) fn parse_found<T, E: Display>(
        &mut self,
        found: Found,
        parse: impl FnOnce(&str) -> Result<T, E>,
        remedy: &str,
    ) -> Option<T> {
        match parse(&found.text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(found.place, found.key, error.to_string(), remedy);
                None
            }
        }
    }

    /// One of our keys as a whole number of `unit`.
    pub(super) fn number(
        &mut self,
        section: &mut Section,
        key: &'static str,
        default: u32,
        range: RangeInclusive<u32>,
        unit: &str,
    ) -> u32 {
        let remedy = format!("write a whole number of {unit} from {} to {}", range.start(), range.end());
        let parse = |text: &str| match text.parse::<u32>() {
            Ok(number) if range.contains(&number) => Ok(number),
            Ok(number) => Err(format!("{number} is out of range")),
            Err(_) => Err(format!("'{}' is not a whole number", excerpt(text))),
        };
        self.parsed(section, key, default, parse, &remedy)
    }

    /// Keys of one of our sections that nobody asked for are mistakes.
    pub(super) fn refuse_rest(&mut self, section: Section) {
        let remedy = format!("remove it; the keys of '{}' are {}", section.name, section.known.join(", "));
        for entry in section.entries {
            let place = self.line(entry.line);
            let key = format!("{}.{}", section.name, excerpt(&entry.key));
            self.problem(place, key, "this key does not exist", remedy.clone());
        }
    }

    /// Keys that are known to be of use to others only: they give no notice, and nobody looks at their values.
    pub(super) fn pass_over(&mut self, section: &mut Section, keys: &[&str]) {
        section.entries.retain(|entry| !keys.contains(&entry.key.as_str()));
    }

    /// Keys of a section that others read too may be theirs.
    pub(super) fn tolerate_rest(&mut self, section: Section) {
        for entry in section.entries {
            let place = self.line(entry.line);
            self.notice(format!("{place}: {}.{} is not used here", section.name, excerpt(&entry.key)));
        }
    }
}

/// The environment variable that overrides a key of ours.
pub(super) fn override_of(section: &str, key: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}_{section}_{key}").to_uppercase()
}

/// A value as it may be quoted in a message: short, and in one line.
pub(super) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 40;
    let mut short: String = text.chars().take(LONGEST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().count() > LONGEST {
        short.push('…');
    }
    short
}

/// `true` or `false`, in the spellings of YAML 1.1 and 1.2.
pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Ok(true),
        "false" | "no" | "off" => Ok(false),
        _ => Err(format!("'{}' is neither true nor false", excerpt(text))),
    }
}
