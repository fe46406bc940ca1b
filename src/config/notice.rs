//! What an operator should know although nothing is wrong with a configuration.

use std::fmt;

/// One thing. Prints as one line: `finding; remedy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The observation.
    pub finding: String,
    /// The remedy; `None`: nothing need be done.
    pub remedy: Option<String>,
}

impl Notice {
    /// One without a remedy.
    pub fn new(finding: impl Into<String>) -> Self {
        Self { finding: finding.into(), remedy: None }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.finding)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}
