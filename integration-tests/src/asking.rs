//! What containers are told when they ask for names.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::host::Host;
use crate::process;
use crate::wait;

impl Host {
    /// The addresses that a container is told when it asks for a name; none when there is no such name, or it has none.
    ///
    /// # Errors
    /// Fails when nobody answers.
    pub fn told(&self, asker: &str, name: &str) -> Result<BTreeSet<String>> {
        Ok(self.told_in_order(asker, name)?.into_iter().collect())
    }

    /// The same, in the order in which they are told.
    ///
    /// # Errors
    /// Fails when nobody answers.
    pub fn told_in_order(&self, asker: &str, name: &str) -> Result<Vec<String>> {
        let asked = self.beside(
            asker,
            &format!("busybox nslookup -type=a {name} 127.0.0.11"),
        )?;
        let said = format!("{}{}", asked.stdout, asked.stderr);
        ensure!(
            asked.code == Some(0) || said.contains("NXDOMAIN"),
            "{asker} asks for {name} and is told: {said}"
        );
        // Before the first name stands who has answered.
        let answer = said.split_once("Name:").map_or("", |(_, answer)| answer);
        let addresses = answer
            .lines()
            .filter_map(|line| line.strip_prefix("Address:"));
        Ok(addresses.map(|address| address.trim().to_owned()).collect())
    }

    /// What `dig`, in a container's network, prints: it is asked as on its command line.
    ///
    /// # Errors
    /// Fails when nobody answers.
    pub fn dig(&self, asker: &str, question: &str) -> Result<String> {
        let network = format!("--net={}", self.network_of(asker)?.display());
        let begin = ["nsenter", &network, "dig", "@127.0.0.11", "+tries=1"];
        let arguments: Vec<&str> = begin.into_iter().chain(question.split(' ')).collect();
        process::machine(&arguments)
    }

    /// Waits until a container is told exactly these addresses; how long that took.
    ///
    /// # Errors
    /// Fails when it is not within so many seconds.
    pub fn is_told(
        &self,
        asker: &str,
        name: &str,
        expected: &[&str],
        limit: u64,
    ) -> Result<std::time::Duration> {
        let expected: BTreeSet<String> = expected.iter().map(|it| (*it).to_owned()).collect();
        let what = format!("{asker} is told {expected:?} for {name}");
        let (_, took) = wait::until(&what, wait::seconds(limit), || {
            let told = self.told(asker, name)?;
            ensure!(told == expected, "it is told {told:?}");
            Ok(())
        })?;
        Ok(took)
    }

    /// Waits until a container's queries are brought to the name service.
    ///
    /// # Errors
    /// Fails when they are not.
    pub fn is_served(&self, container: &str) -> Result<()> {
        wait::until(&format!("{container} is served"), wait::seconds(10), || {
            let tables = self.beside(container, "nft list tables")?.succeeded()?;
            ensure!(tables.contains("drover-names"), "tables: {tables}");
            Ok(())
        })?;
        Ok(())
    }

    /// Waits until nothing of the name service is in a container.
    ///
    /// # Errors
    /// Fails when something stays.
    pub fn is_not_served(&self, container: &str) -> Result<()> {
        let what = format!("{container} is Docker's alone");
        wait::until(&what, wait::seconds(5), || {
            let tables = self.beside(container, "nft list tables")?.succeeded()?;
            ensure!(!tables.contains("drover"), "tables: {tables}");
            Ok(())
        })?;
        Ok(())
    }

    /// What the name service has counted: all of it, or what one container has asked.
    ///
    /// # Errors
    /// Fails when it does not answer, or does not serve the container.
    pub fn name_counters(&self, container: Option<&str>) -> Result<Value> {
        let report = self.drover_json("dns metrics")?;
        let reported = || format!("{container:?} is not served: {report}");
        let Some(container) = container else {
            return report.get("counters").cloned().with_context(reported);
        };
        let sandboxes = report.get("sandboxes").and_then(Value::as_array);
        let mut sandboxes = sandboxes.into_iter().flatten();
        let is_its = |sandbox: &&Value| sandbox.get("name").is_some_and(|name| name == container);
        let found = sandboxes.find(is_its).and_then(|it| it.get("counters"));
        found.cloned().with_context(reported)
    }
}
