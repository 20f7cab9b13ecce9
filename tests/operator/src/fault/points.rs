//! Where in a run an operator is disturbed: at which of its calls, or at which event of a watch.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};

/// On which side of a call an operator is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The request never leaves.
    Before,
    /// The call takes effect, but its answer never comes.
    After,
}

/// Where an operator is ended: at which mutating call, by name and how often it was made before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrashPoint {
    /// Before or after.
    pub side: Side,
    /// [`Call`](super::Call) as text.
    pub call: String,
    /// The first is 1.
    pub occurrence: usize,
}

impl fmt::Display for CrashPoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Before => "before",
            Side::After => "after",
        };
        write!(formatter, "{side} {} #{}", self.call, self.occurrence)
    }
}

impl FromStr for CrashPoint {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let form = "a crash point has the form \"before patch stores/status tulip #1\"";
        let (side, rest) = text.split_once(' ').context(form)?;
        let side = match side {
            "before" => Side::Before,
            "after" => Side::After,
            _ => bail!(form),
        };
        let (call, occurrence) = numbered(rest).context(form)?;
        Ok(Self {
            side,
            call,
            occurrence,
        })
    }
}

/// An event of a watch, counted on when the watch begins again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPoint {
    /// The watch's [`Call`](super::Call) as text.
    pub watch: String,
    /// The first is 1.
    pub number: usize,
}

impl fmt::Display for EventPoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} #{}", self.watch, self.number)
    }
}

impl FromStr for EventPoint {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let form = "an event has the form \"watch pods #1\"";
        let (watch, number) = numbered(text).context(form)?;
        Ok(Self { watch, number })
    }
}

fn numbered(text: &str) -> Result<(String, usize)> {
    let (what, number) = text.rsplit_once(" #").context("it has no number")?;
    Ok((what.to_owned(), number.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_read_as_they_are_shown() {
        let shown = "after patch stores/status tulip #2";
        let point: CrashPoint = shown.parse().unwrap();
        assert_eq!(point.to_string(), shown);
        assert!("during patch a #1".parse::<CrashPoint>().is_err());
        assert!("after patch a".parse::<CrashPoint>().is_err());
        let shown = "watch pods app%3Dhive #12";
        let point: EventPoint = shown.parse().unwrap();
        assert_eq!((point.number, point.to_string().as_str()), (12, shown));
        assert!("watch pods".parse::<EventPoint>().is_err());
        assert!("watch pods #last".parse::<EventPoint>().is_err());
    }
}
