//! Running scenarios in order, and reporting on them.

use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use drover_testkit::capability::{Capability, is_required};

use crate::engine::Release;
use crate::lab::Lab;
use crate::{interrupt, wait};

/// What every scenario needs of the machine, besides the root file system with its engine.
const BASICS: [Capability; 4] = [
    Capability::Namespaces,
    Capability::Nftables,
    Capability::BridgeTables,
    Capability::Forwarding,
];

/// What a scenario begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// Two hosts in one cluster, nothing on it. The next scenario gets the same when this one has left it
    /// as it was.
    Cluster,
    /// So many hosts with an engine and without Drover, of this scenario alone.
    Engines(u8),
}

/// A scenario.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name, which says what holds.
    pub name: &'static str,
    /// What it begins with.
    pub setup: Setup,
    /// What it needs beyond the lab's basics.
    pub needs: &'static [Capability],
    /// What it does.
    pub run: fn(&mut Lab) -> Result<()>,
}

/// Scenarios that belong together.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// The scenarios, in order.
    pub scenarios: &'static [Scenario],
    /// Which engines they are run on when none is named: each one where the engine has a part in what they
    /// show, the oldest and the newest where that is its API alone, which only grows, else the newest.
    pub engines: Engines,
}

/// The engines that a group is run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engines {
    /// Every one there is.
    Every,
    /// The oldest and the newest.
    OldestAndNewest,
    /// The newest.
    Newest,
}

/// How a scenario came out.
#[derive(Debug, Clone)]
enum Outcome {
    Passed,
    /// Not at the first try, which had failed for this reason.
    PassedAgain(String),
    Failed(String),
    Skipped(String),
}

/// One line of the report.
#[derive(Debug, Clone)]
struct Line {
    release: Release,
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

/// What the command line asks for.
#[derive(Debug, Default)]
struct Request {
    filters: Vec<String>,
    releases: Vec<Release>,
    every: bool,
    list: bool,
}

impl Request {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut request = Self::default();
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--list" => request.list = true,
                "--every" => request.every = true,
                "--engine" => {
                    let wanted = arguments.next().context("--engine needs a version")?;
                    let release = Release::ALL
                        .into_iter()
                        .find(|release| release.version() == wanted)
                        .with_context(|| {
                            format!("no engine {wanted}; there are 20.10, 26.1 and 28.5")
                        })?;
                    request.releases.push(release);
                }
                flag if flag.starts_with('-') => {
                    bail!(
                        "unknown {flag}; usage: scenarios [--list] [--every | --engine VERSION]... [PART OF A NAME]..."
                    )
                }
                filter => request.filters.push(filter.to_owned()),
            }
        }
        request.every |= !request.releases.is_empty();
        if request.releases.is_empty() {
            request.releases = Release::ALL.to_vec();
        }
        Ok(request)
    }

    /// What is to be run on an engine.
    fn of<'a>(
        &'a self,
        groups: &'a [Group],
        release: Release,
    ) -> impl Iterator<Item = &'a Scenario> {
        let newest = Release::ALL.last() == Some(&release);
        let oldest = Release::ALL.first() == Some(&release);
        let is_for = move |engines| match engines {
            Engines::Every => true,
            Engines::OldestAndNewest => oldest || newest,
            Engines::Newest => newest,
        };
        groups
            .iter()
            .filter(move |group| self.every || is_for(group.engines))
            .flat_map(|group| group.scenarios)
            .filter(|scenario| self.wants(scenario))
    }

    fn wants(&self, scenario: &Scenario) -> bool {
        self.filters.is_empty()
            || self
                .filters
                .iter()
                .any(|part| scenario.name.contains(part.as_str()))
    }
}

/// Runs what the command line asks for, and tells whether nothing failed.
///
/// # Errors
/// Fails when the command line is wrong.
pub fn main(groups: &[Group]) -> Result<bool> {
    let request = Request::parse(std::env::args().skip(1))?;
    if request.list {
        for release in &request.releases {
            for scenario in request.of(groups, *release) {
                say(&format!(
                    "engine {:<6} {}",
                    release.version(),
                    scenario.name
                ));
            }
        }
        return Ok(true);
    }
    interrupt::handle()?;
    // The newest first: it has the most to run.
    let waiting = Mutex::new(request.releases.clone());
    let report = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _worker in 0..at_once() {
            scope.spawn(|| {
                // Nobody else waits until it has ended: what is held is let go with the closure.
                let next = || held(&waiting).pop();
                while let Some(release) = next() {
                    let lines = run_engine(&request, groups, release);
                    held(&report).insert(release, lines);
                }
            });
        }
    });
    let report: Vec<_> = held(&report).values().flatten().cloned().collect();
    Ok(conclude(&report))
}

/// How many engines are at work at the same time, each with a lab of its own: `DROVER_LAB_AT_ONCE`.
fn at_once() -> usize {
    let asked = std::env::var("DROVER_LAB_AT_ONCE").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(1)
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs everything that is to run on an engine.
fn run_engine(request: &Request, groups: &[Group], release: Release) -> Vec<Line> {
    let mut bench = Bench { release, lab: None };
    let lines = request.of(groups, release).map(|scenario| {
        let line = bench.run(scenario);
        say(&line.text());
        if let Outcome::Failed(reason) = &line.outcome {
            say(&format!("    {}", reason.replace('\n', "\n    ")));
        }
        line
    });
    lines.collect()
}

/// The lab of an engine between scenarios.
struct Bench {
    release: Release,
    lab: Option<Lab>,
}

impl Bench {
    fn run(&mut self, scenario: &Scenario) -> Line {
        let begun = Instant::now();
        let outcome = match self.lacks(scenario) {
            Some((what, reason)) if is_required(&what) => {
                Outcome::Failed(format!("{what} is required, but {reason}"))
            }
            Some((what, reason)) => Outcome::Skipped(format!("needs {what}: {reason}")),
            None => match (self.attempt_logged(scenario), second_try()) {
                (Ok(()), _) => Outcome::Passed,
                (Err(reason), false) => Outcome::Failed(reason),
                (Err(first), true) => {
                    say(&format!("again: {}\n    {first}", scenario.name));
                    match self.attempt_logged(scenario) {
                        Ok(()) => Outcome::PassedAgain(first),
                        Err(reason) => Outcome::Failed(reason),
                    }
                }
            },
        };
        Line {
            release: self.release,
            name: scenario.name,
            outcome,
            took: begun.elapsed(),
        }
    }

    /// Runs it, and gives up its lab when it fails: the reason has the logs.
    fn attempt_logged(&mut self, scenario: &Scenario) -> Result<(), String> {
        self.attempt(scenario).map_err(|error| {
            self.pause(&error);
            let logs = self.lab.take().map(|lab| lab.logs(60)).unwrap_or_default();
            format!("{error:#}\n{logs}")
        })
    }

    /// With `DROVER_LAB_PAUSE` a failure leaves the lab as it is, until the run is interrupted.
    fn pause(&self, error: &anyhow::Error) {
        let (Some(_), Some(lab)) = (std::env::var_os("DROVER_LAB_PAUSE"), &self.lab) else {
            return;
        };
        say(&format!("{error:#}"));
        for host in &lab.hosts {
            if let Ok(pid) = host.init() {
                say(&format!("{}: nsenter -t {pid} -m -n -p -u -i", host.name));
            }
        }
        loop {
            std::thread::park();
        }
    }

    /// What the machine does not have that the scenario needs, and why.
    fn lacks(&self, scenario: &Scenario) -> Option<(String, String)> {
        let needs = BASICS.iter().chain(scenario.needs);
        needs
            .map(|need| (need.to_string(), need.absence()))
            .chain([(format!("engine-{}", self.release), self.release.absence())])
            .find_map(|(what, absence)| Some((what, absence?)))
    }

    /// Runs it; the lab is kept only where the next scenario may have it, or where its logs are wanted.
    fn attempt(&mut self, scenario: &Scenario) -> Result<()> {
        let mut lab = match (scenario.setup, self.lab.take()) {
            (Setup::Cluster, Some(lab)) => lab,
            (Setup::Cluster, None) => {
                let lab = self.lab.insert(Lab::start(self.release, 2)?);
                lab.form_cluster()?;
                self.lab.take().context("the lab was just made")?
            }
            (Setup::Engines(hosts), kept) => {
                drop(kept);
                Lab::start(self.release, hosts)?
            }
        };
        let ran = catch_unwind(AssertUnwindSafe(|| (scenario.run)(&mut lab)))
            .unwrap_or_else(|panic| Err(anyhow!("it panicked: {}", message(&panic))))
            .and_then(|()| match scenario.setup {
                Setup::Cluster => cleared(&mut lab),
                Setup::Engines(_) => Ok(()),
            });
        if ran.is_err() || scenario.setup == Setup::Cluster {
            self.lab = Some(lab);
        }
        ran
    }
}

/// Whether a scenario that failed is run once more in a fresh lab, and then said to have needed it.
fn second_try() -> bool {
    std::env::var_os("DROVER_LAB_SECOND_TRY").is_some()
}

/// Clears what a scenario made, and checks that nothing of it stays in the cluster.
fn cleared(lab: &mut Lab) -> Result<()> {
    while lab.hosts.len() > 2 {
        lab.remove_last_host();
    }
    for host in &lab.hosts {
        host.clear()?;
    }
    for host in &lab.hosts {
        wait::until(
            &format!("no networks left on {}", host.name),
            wait::seconds(20),
            || {
                let left = host.drover_networks()?;
                ensure!(left.is_empty(), "{} has {left:?}", host.name);
                Ok(())
            },
        )?;
    }
    Ok(())
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}

impl Line {
    fn text(&self) -> String {
        let (word, reason) = match &self.outcome {
            Outcome::Passed => ("ok", ""),
            Outcome::PassedAgain(first) => ("ok (2)", first.lines().next().unwrap_or_default()),
            Outcome::Failed(_) => ("FAILED", ""),
            Outcome::Skipped(reason) => ("skipped", reason.lines().next_back().unwrap_or_default()),
        };
        let took = self.took.as_secs_f64();
        format!(
            "{:<7} engine {:<6} {:<64} {took:>6.1} s  {reason}",
            word,
            self.release.version(),
            self.name
        )
    }
}

/// Prints the table and the last line.
fn conclude(report: &[Line]) -> bool {
    let mut counts = (0, 0, 0);
    say("\nscenarios:");
    for line in report {
        match line.outcome {
            Outcome::Passed | Outcome::PassedAgain(_) => counts.0 += 1,
            Outcome::Failed(_) => counts.1 += 1,
            Outcome::Skipped(_) => counts.2 += 1,
        }
        say(&line.text());
    }
    say(&format!(
        "\n{} passed, {} failed, {} skipped",
        counts.0, counts.1, counts.2
    ));
    counts.1 == 0
}

fn say(line: &str) {
    // Nobody is left to be told when standard output is closed.
    let _written = writeln!(std::io::stdout().lock(), "{line}");
}
