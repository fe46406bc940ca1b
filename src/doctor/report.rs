//! The judgement: one [`Check`] a line, as text for a terminal and as JSON for a program.

use std::fmt;

use serde::Serialize;

/// How bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Ok,
    /// Worth knowing; nothing that is wrong here.
    Note,
    /// Guests can come, and something will be missing or break later.
    Warning,
    /// Some or all guests cannot be brought into the mixer.
    Error,
}

impl Severity {
    /// For scripts: 0, 1 for warnings, 2 for errors.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Ok | Self::Note => 0,
            Self::Warning => 1,
            Self::Error => 2,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "ERROR",
        })
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at, in one word.
    pub check: &'static str,
    pub severity: Severity,
    /// The observation.
    pub finding: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// All lines, in the order of a guest's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub checks: Vec<Check>,
}

impl Report {
    /// The worst of all.
    pub fn severity(&self) -> Severity {
        self.checks.iter().map(|check| check.severity).max().unwrap_or(Severity::Ok)
    }

    /// One object: `version`, `severity`, `checks`.
    pub fn json(&self) -> String {
        #[derive(Serialize)]
        struct Object<'a> {
            version: &'static str,
            severity: Severity,
            checks: &'a [Check],
        }
        let object = Object { version: env!("CARGO_PKG_VERSION"), severity: self.severity(), checks: &self.checks };
        serde_json::to_string_pretty(&object).expect("strings and lists of them can be written")
    }

    fn count(&self, severity: Severity) -> usize {
        self.checks.iter().filter(|check| check.severity == severity).count()
    }
}

/// Severity, check, finding; below it, indented, what to do.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            for (index, line) in check.finding.lines().enumerate() {
                match index {
                    0 => writeln!(f, "{:<8} {:<10} {line}", check.severity, check.check)?,
                    _ => writeln!(f, "{:<19} {line}", "")?,
                }
            }
            if let Some(remedy) = &check.remedy {
                for (index, line) in remedy.lines().enumerate() {
                    writeln!(f, "{:<19} {} {line}", "", if index == 0 { "->" } else { "  " })?;
                }
            }
        }
        let plural = |count, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        match (self.count(Severity::Error), self.count(Severity::Warning)) {
            (0, 0) => write!(f, "\nNothing to do."),
            (errors, warnings) => {
                write!(f, "\n{}, {}.", plural(errors, "error"), plural(warnings, "warning"))
            }
        }
    }
}
