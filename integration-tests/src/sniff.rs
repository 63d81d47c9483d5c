//! Listening on the underlay for what must not be there.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::network::Underlay;
use crate::process::machine;
use crate::wait;

/// What packets that are looked for are filled with: `ping -p`.
pub const PATTERN: &str = "64726f766572636c6561722121";
/// The same, as it lies in a packet.
pub(crate) const TEXT: &str = "droverclear!!";

/// A capture of everything on the hosts' links.
#[derive(Debug)]
pub struct Sniffer {
    captures: Vec<Child>,
    directory: TempDir,
}

/// What was on the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Packets that have the pattern.
    pub clear: usize,
    /// Packets of ESP, in UDP or by itself.
    pub encrypted: usize,
    /// Parts of packets that were cut.
    pub fragments: usize,
}

impl Sniffer {
    /// Begins.
    ///
    /// # Errors
    /// Fails when tcpdump does not.
    pub fn start(underlay: &Underlay) -> Result<Self> {
        let directory = TempDir::new()?;
        let mut sniffer = Self {
            captures: Vec::new(),
            directory,
        };
        for link in ["near", "far"] {
            let file = sniffer.directory.path().join(link);
            let log = sniffer.directory.path().join(format!("{link}.log"));
            let script = format!(
                "exec tcpdump -U -n -i {link} -s 0 -B 65536 -w {} 2> {}",
                file.display(),
                log.display()
            );
            let mut command = underlay.switch().command(&script);
            let capture = command.stdout(Stdio::null()).spawn()?;
            sniffer.captures.push(capture);
            wait::until("a capture of the underlay", wait::seconds(5), || {
                let said = std::fs::read_to_string(&log)?;
                ensure!(said.contains("listening on"), "tcpdump says: {said}");
                Ok(())
            })?;
        }
        Ok(sniffer)
    }

    /// The file of what was on the hosts' first link until now.
    #[must_use]
    pub fn near(&self) -> PathBuf {
        self.directory.path().join("near")
    }

    /// Ends and counts.
    ///
    /// # Errors
    /// Fails when the capture has lost packets, so that nothing can be said.
    pub fn stop(mut self) -> Result<Seen> {
        for capture in &mut self.captures {
            machine(&["kill", "-INT", &capture.id().to_string()])?;
            capture.wait()?;
        }
        let mut seen = Seen {
            clear: 0,
            encrypted: 0,
            fragments: 0,
        };
        for link in ["near", "far"] {
            let log = std::fs::read_to_string(self.directory.path().join(format!("{link}.log")))?;
            ensure!(
                log.contains("0 packets dropped by kernel"),
                "the capture has lost packets: {log}"
            );
            let capture = self.directory.path().join(link);
            let file = capture.to_string_lossy();
            seen.encrypted += count(&file, "esp or (udp and portrange 4740-4747)")?;
            seen.fragments += count(&file, "ip[6:2] & 0x3fff != 0 or ip6[6] == 44")?;
            let bytes = std::fs::read(&capture)?;
            seen.clear += memchr::memmem::find_iter(&bytes, TEXT).count();
        }
        Ok(seen)
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        for capture in &mut self.captures {
            // The only failure is that it has ended already.
            let _killed = capture.kill();
            let _waited = capture.wait();
        }
    }
}

/// How many packets of a capture match a filter.
fn count(file: &str, filter: &str) -> Result<usize> {
    let said = machine(&["tcpdump", "-n", "--count", "-r", file, filter]);
    let said = said.context("reading a capture")?;
    let count = said.split_whitespace().next().map(str::parse);
    count
        .with_context(|| format!("tcpdump says: {said}"))?
        .context("a count")
}
