//! Drover on a host, used as a person uses it.

use std::fmt;
use std::process::Child;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::host::Host;
use crate::wait;

/// The log of `drover up`.
pub const LOG: &str = "drover.log";
/// The processes that make up Drover.
pub const PLUGINS: [&str; 5] = [
    "drover-coordinator",
    "drover-ipam",
    "drover-net",
    "drover-names",
    "drover-vol",
];
/// What `network create` needs to make a network of Drover's. It is clear, so that a kernel without ESP can run
/// most of the lab; with `DROVER_LAB_NETWORKS=encrypted` it is as Drover makes it by itself.
pub const CREATE: Create = Create;

/// See [`CREATE`].
#[derive(Debug, Clone, Copy)]
pub struct Create;

impl fmt::Display for Create {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(CREATE_ENCRYPTED)?;
        if std::env::var("DROVER_LAB_NETWORKS").is_ok_and(|kind| kind == "encrypted") {
            return Ok(());
        }
        formatter.write_str(" -o encryption=off")
    }
}

/// What `network create` needs to make an encrypted one.
pub const CREATE_ENCRYPTED: &str = "docker network create -d drover-net --ipam-driver drover-ipam";

impl Host {
    /// Runs `drover up` in the background with further flags, and waits for its line.
    ///
    /// # Errors
    /// Fails when Drover does not come up.
    pub fn drover_up(&mut self, flags: &str) -> Result<()> {
        self.drover_up_as("", flags)
    }

    /// Runs `drover up` behind another command (such as `faketime`) or variables.
    ///
    /// # Errors
    /// Fails when Drover does not come up.
    pub fn drover_up_as(&mut self, prefix: &str, flags: &str) -> Result<()> {
        let before = self.drover_ups();
        let mut child = self.spawn(
            &format!("exec env RUST_BACKTRACE=1 {prefix} drover up {flags}"),
            LOG,
        )?;
        let outcome = self.is_up(&mut child, before);
        self.keep(child);
        outcome
    }

    /// Waits until a `drover up` says that Drover is up, more often than `before`, or ends.
    fn is_up(&self, child: &mut Child, before: usize) -> Result<()> {
        let what = format!("`drover is up` on {}", self.name);
        let (ended, _) = wait::until(&what, wait::seconds(60), || {
            if self.drover_ups() > before {
                return Ok(None);
            }
            match child.try_wait()? {
                Some(status) => Ok(Some(status)),
                None => bail!("drover up has said: {}", self.tail(LOG, 20)),
            }
        })?;
        match ended {
            None => Ok(()),
            Some(status) => bail!("drover up has ended, {status}: {}", self.tail(LOG, 20)),
        }
    }

    /// Kills `drover up` and every process of it, at one stroke.
    ///
    /// # Errors
    /// Fails when none runs.
    pub fn kill_drover(&self) -> Result<()> {
        let mut pids = self.processes("drover")?;
        for plugin in PLUGINS {
            pids.extend(self.processes(plugin)?);
        }
        pids.extend(self.processes("etcd")?);
        let list: Vec<String> = pids.iter().map(u32::to_string).collect();
        self.run(&format!("kill -9 {}", list.join(" ")))?;
        Ok(())
    }

    /// Kills each of Drover's processes but `drover up` itself, one after another, and waits for the next of its kind.
    ///
    /// # Errors
    /// Fails when none takes its place.
    pub fn kill_each_plugin(&self) -> Result<()> {
        for plugin in PLUGINS {
            let before = self.processes(plugin)?;
            self.kill(plugin, "9")?;
            wait::until(&format!("a new {plugin}"), wait::seconds(5), || {
                let now = self.processes(plugin)?;
                ensure!(now.len() == 1 && now != before, "{plugin}: {now:?}");
                Ok(())
            })?;
        }
        Ok(())
    }

    /// How often `drover is up` has been said.
    fn drover_ups(&self) -> usize {
        let text = std::fs::read_to_string(self.log(LOG)).unwrap_or_default();
        text.lines()
            .filter(|line| line.contains("drover is up"))
            .count()
    }

    /// Stops Drover in order.
    ///
    /// # Errors
    /// Fails when it does not end.
    pub fn drover_down(&self) -> Result<()> {
        self.kill("drover", "TERM")?;
        for plugin in PLUGINS {
            let left = self.processes(plugin)?;
            if !left.is_empty() {
                bail!("{plugin} of {} runs without `drover up`", self.name);
            }
        }
        Ok(())
    }

    /// `drover init`, or another token of a cluster that is there: the arguments of `drover join`.
    ///
    /// # Errors
    /// Fails when it does, or prints no line to join with.
    pub fn invite(&self) -> Result<String> {
        let said = self.run("drover init")?;
        let line = said
            .lines()
            .find_map(|line| line.split_once("drover join "))
            .with_context(|| format!("`drover init` prints no `drover join` line: {said}"))?;
        Ok(line.1.trim().trim_matches('`').to_owned())
    }

    /// `drover join` with what [`Host::invite`] gave.
    ///
    /// # Errors
    /// Fails when it does.
    pub fn join(&self, invitation: &str) -> Result<()> {
        self.run(&format!("drover join {invitation}"))?;
        Ok(())
    }

    /// A command's `--json` answer.
    ///
    /// # Errors
    /// Fails when it does, or answers no JSON.
    pub fn drover_json(&self, command: &str) -> Result<Value> {
        let said = self.run(&format!("drover {command} --json"))?;
        serde_json::from_str(&said)
            .with_context(|| format!("`drover {command} --json` said: {said}"))
    }

    /// The networks of Drover's that the engine has, by name.
    ///
    /// # Errors
    /// Fails when the engine does not answer.
    pub fn drover_networks(&self) -> Result<Vec<String>> {
        let said = self.run("docker network ls --filter driver=drover-net --format '{{.Name}}'")?;
        Ok(said.lines().map(str::to_owned).collect())
    }
}
