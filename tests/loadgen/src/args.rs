//! Command-line options: `--name value` and `--name`, each taken once by the code that knows it.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use loadgen::netem::{Blackout, Impairments};

/// What is left of the command line.
pub(crate) struct Args(Vec<String>);

impl Args {
    pub(crate) fn new(args: Vec<String>) -> Args {
        Args(args)
    }

    /// Takes `--name`.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let found = self.0.iter().position(|arg| arg == name);
        found.map(|index| self.0.remove(index)).is_some()
    }

    /// Takes `--name value`.
    pub(crate) fn value<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<Option<T>, String> {
        let Some(index) = self.0.iter().position(|arg| arg == name) else {
            return Ok(None);
        };
        self.0.remove(index);
        if index == self.0.len() {
            return Err(format!("{name} needs a value"));
        }
        let value = self.0.remove(index);
        value.parse().map(Some).map_err(|error| format!("{name} {value}: {error}"))
    }

    pub(crate) fn required<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<T, String> {
        self.value(name)?.ok_or_else(|| format!("{name} is missing"))
    }

    pub(crate) fn seconds(&mut self, name: &str) -> Result<Option<Duration>, String> {
        let seconds: Option<f64> = self.value(name)?;
        let duration = seconds.map(Duration::try_from_secs_f64).transpose();
        duration.map_err(|error| format!("{name}: {error}"))
    }

    fn milliseconds(&mut self, name: &str) -> Result<Duration, String> {
        Ok(Duration::from_millis(self.value(name)?.unwrap_or(0)))
    }

    /// A share: `0.03` or `3%`.
    fn share(&mut self, name: &str) -> Result<f64, String> {
        let Some(text) = self.value::<String>(name)? else {
            return Ok(0.0);
        };
        let (number, scale) = match text.strip_suffix('%') {
            Some(percent) => (percent, 0.01),
            None => (text.as_str(), 1.0),
        };
        let share = number.parse::<f64>().map(|number| number * scale);
        match share {
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
            _ => Err(format!("{name} {text}: not a share such as 0.03 or 3%")),
        }
    }

    /// The network's options.
    pub(crate) fn impairments(&mut self) -> Result<Impairments, String> {
        let mut blackouts = Vec::new();
        while let Some(text) = self.value::<String>("--blackout")? {
            let seconds = |text: &str| Duration::try_from_secs_f64(text.parse().ok()?).ok();
            let blackout = text
                .split_once(':')
                .and_then(|(at, duration)| Some(Blackout { at: seconds(at)?, duration: seconds(duration)? }));
            blackouts.push(blackout.ok_or_else(|| format!("--blackout {text}: not AT:DURATION in seconds"))?);
        }
        Ok(Impairments {
            loss: self.share("--loss")?,
            burst: self.value("--burst")?.unwrap_or(1.0),
            delay: self.milliseconds("--delay-ms")?,
            jitter: self.milliseconds("--jitter-ms")?,
            reorder: self.share("--reorder")?,
            duplicate: self.share("--duplicate")?,
            rate_kbps: self.value("--rate-kbps")?,
            queue: self.milliseconds("--queue-ms")?,
            blackouts,
        })
    }

    /// Everything must have been taken.
    pub(crate) fn finish(self) -> Result<(), String> {
        match self.0.first() {
            Some(unknown) => Err(format!("unknown argument {unknown}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn args(line: &str) -> Args {
        Args::new(line.split(' ').map(str::to_owned).collect())
    }

    #[test]
    fn network_options_are_read_and_nothing_is_left() {
        let line = "--loss 3% --burst 4 --delay-ms 25 --jitter-ms 20 --reorder 0.01 --duplicate 1% \
            --rate-kbps 2000 --queue-ms 100 --blackout 5:10 --blackout 30:0.5";
        let mut args = args(line);
        let second = Duration::from_secs(1);
        let expected = Impairments {
            loss: 0.03,
            burst: 4.0,
            delay: second / 40,
            jitter: second / 50,
            reorder: 0.01,
            duplicate: 0.01,
            rate_kbps: Some(2000),
            queue: second / 10,
            blackouts: vec![
                Blackout { at: second * 5, duration: second * 10 },
                Blackout { at: second * 30, duration: second / 2 },
            ],
        };
        assert_eq!(args.impairments(), Ok(expected));
        assert_eq!(args.finish(), Ok(()));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert_eq!(args("--los 3%").finish(), Err("unknown argument --los".to_owned()));
        assert!(args("--loss 3").impairments().unwrap_err().starts_with("--loss 3"));
        assert!(args("--blackout 3").impairments().unwrap_err().starts_with("--blackout 3"));
        assert_eq!(args("--seed").value::<u64>("--seed"), Err("--seed needs a value".to_owned()));
    }
}
