//! What the benchmarks have in common: their arguments, medians, ratios, and the table that they print.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context, Result, bail};

use crate::cache;
use crate::drover::PLUGINS;
use crate::engine::Release;
use crate::process::machine;

/// What a benchmark's command line asks for.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// `--engine`: the engine of the hosts.
    pub release: Release,
    /// `--rounds`: how often everything is measured, in turn.
    pub rounds: usize,
    /// `--seconds`: how long one measurement of a throughput takes.
    pub seconds: u32,
}

impl Request {
    /// Reads the command line over a benchmark's own defaults and `DROVER_LAB_ENGINE`, and checks that Drover's programs are there.
    ///
    /// # Errors
    /// Fails when a flag is unknown or a program has not been built.
    pub fn parse(rounds: usize, seconds: u32) -> Result<Self> {
        let mut request = Self {
            release: match std::env::var("DROVER_LAB_ENGINE") {
                Ok(version) => release(&version)?,
                Err(_) => Release::V28,
            },
            rounds,
            seconds,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(flag) = arguments.next() {
            let value = arguments
                .next()
                .with_context(|| format!("{flag} needs a value"))?;
            match flag.as_str() {
                "--engine" => request.release = release(&value)?,
                "--rounds" => request.rounds = value.parse().context("--rounds")?,
                "--seconds" => request.seconds = value.parse().context("--seconds")?,
                _ => bail!("unknown {flag}; there are --engine, --rounds and --seconds"),
            }
        }
        let programs = cache::binaries()?;
        for program in PLUGINS.into_iter().chain(["drover"]) {
            if !programs.join(program).exists() {
                bail!(
                    "there is no {program} in {}; build it: cargo build --release -p drover -p drover-coordinator -p drover-ipam -p drover-net -p drover-name-service -p drover-vol",
                    programs.display()
                );
            }
        }
        Ok(request)
    }

    /// What the figures were taken on.
    ///
    /// # Errors
    /// Fails when the machine does not tell.
    pub fn machine(&self) -> Result<String> {
        let kernel = machine(&["uname", "-r"])?;
        let cores = std::thread::available_parallelism()?;
        let build = if cfg!(debug_assertions) {
            "built without optimisation: the figures mean little"
        } else {
            "release build"
        };
        Ok(format!(
            "kernel {kernel}, {cores} cores, engine {}, {} rounds, {build}",
            self.release, self.rounds
        ))
    }
}

fn release(version: &str) -> Result<Release> {
    let mut all = Release::ALL.into_iter();
    all.find(|release| release.version() == version)
        .with_context(|| format!("no engine {version}; there are 20.10, 26.1 and 28.5"))
}

/// Measurements of one thing, in the order of the rounds.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// One more.
    pub fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The sample below which a share of all lies; 0 when there are none.
    #[must_use]
    pub fn quantile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        let place = (last * percent + 50) / 100;
        sorted.get(place).copied().unwrap_or_default()
    }

    /// The middle one.
    #[must_use]
    pub fn median(&self) -> f64 {
        self.quantile(50)
    }

    /// Those of the even rounds, and those of the odd ones: how far one thing is from itself.
    #[must_use]
    pub fn halves(&self) -> (Self, Self) {
        let half = |first: usize| self.0.iter().skip(first).step_by(2).copied().collect();
        (half(0), half(1))
    }

    /// Each sample over that of the same round of another thing, so that what slows a whole round down
    /// is in no ratio.
    #[must_use]
    pub fn over(&self, other: &Self) -> Self {
        let pairs = self.0.iter().zip(&other.0);
        Self(pairs.map(|(own, others)| own / others).collect())
    }

    /// How much each sample is more than that of the same round of another thing.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> Self {
        let pairs = self.0.iter().zip(&other.0);
        Self(pairs.map(|(own, others)| own - others).collect())
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}

/// The table that a benchmark prints.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a heading for each column.
    #[must_use]
    pub fn new<S: ToString>(headings: &[S]) -> Self {
        let headings = headings.iter().map(ToString::to_string).collect();
        Self {
            rows: vec![headings],
        }
    }

    /// Adds a row.
    pub fn row<S: ToString>(&mut self, cells: &[S]) {
        self.rows
            .push(cells.iter().map(ToString::to_string).collect());
    }

    /// The first column flush left, the others flush right.
    #[must_use]
    pub fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or_default()
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (place, (cell, width)) in row.iter().zip(&widths).enumerate() {
                // Writing to a string does not fail.
                let _written = if place == 0 {
                    write!(line, "{cell:<width$}")
                } else {
                    write!(line, "  {cell:>width$}")
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Prints a line, or a table.
pub fn say(text: &str) {
    // Nobody is left to be told when standard output is closed.
    let _written = writeln!(std::io::stdout().lock(), "{text}");
}

/// Tells how far it has come, beside the figures.
pub fn progress(text: &str) {
    let _written = writeln!(std::io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_sample_is_the_median() {
        let samples: Samples = [5.0, 1.0, 3.0].into_iter().collect();
        assert!((samples.median() - 3.0).abs() < f64::EPSILON);
        assert!((samples.quantile(99) - 5.0).abs() < f64::EPSILON);
        assert!((samples.quantile(0) - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let own: Samples = [2.0, 20.0, 200.0].into_iter().collect();
        let other: Samples = [1.0, 10.0, 100.0].into_iter().collect();
        let ratios = own.over(&other);
        assert!((ratios.quantile(0) - 2.0).abs() < f64::EPSILON);
        assert!((ratios.quantile(100) - 2.0).abs() < f64::EPSILON);
        assert!((own.beyond(&other).quantile(100) - 100.0).abs() < f64::EPSILON);
    }

    #[test]
    fn halves_are_of_turns() {
        let samples: Samples = [1.0, 2.0, 3.0].into_iter().collect();
        let (even, odd) = samples.halves();
        assert_eq!((even.count(), odd.count()), (2, 1));
        assert!((odd.median() - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_table_has_straight_columns() {
        let mut table = Table::new(&["path", "figure"]);
        table.row(&["a long name", "1"]);
        assert_eq!(table.text(), "path         figure\na long name       1\n");
    }
}
