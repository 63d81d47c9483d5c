//! The engine of a host.

use std::fmt;
use std::path::PathBuf;

use anyhow::Result;

use crate::cache;
use crate::host::Host;
use crate::process::machine;
use crate::wait;

/// The log of the engine.
pub const LOG: &str = "dockerd.log";

/// The releases of the engine that the lab has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// Engine 20.10 of bookworm, with trixie's Compose 2.26 and etcd 3.4.
    V20,
    /// Engine 26.1 of trixie, Compose 2.26 and etcd 3.5.
    V26,
    /// Engine 28.5 of sid, Compose 2.40 and etcd 3.5.
    V28,
}

impl Release {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::V20, Self::V26, Self::V28];

    /// The Debian suite that it comes from.
    #[must_use]
    pub const fn suite(self) -> &'static str {
        match self {
            Self::V20 => "bookworm",
            Self::V26 => "trixie",
            Self::V28 => "sid",
        }
    }

    /// Its version, as `docker version` begins it.
    #[must_use]
    pub const fn version(self) -> &'static str {
        match self {
            Self::V20 => "20.10",
            Self::V26 => "26.1",
            Self::V28 => "28.5",
        }
    }

    /// The Compose plugin of another suite, for a suite that has none.
    #[must_use]
    pub fn borrowed_compose(self) -> Option<PathBuf> {
        match self {
            Self::V20 => {
                let suite = cache::root(Self::V26.suite());
                Some(suite.join("usr/libexec/docker/cli-plugins/docker-compose"))
            }
            Self::V26 | Self::V28 => None,
        }
    }

    /// A client that speaks to BuildKit without a plugin of its own; later ones need `buildx`, which no suite has for them all.
    #[must_use]
    pub fn client_with_buildkit() -> PathBuf {
        cache::root(Self::V20.suite()).join("usr/bin/docker")
    }

    /// Why the machine cannot run it; `None` when it can.
    #[must_use]
    pub fn absence(self) -> Option<String> {
        let suite = self.suite();
        if !cache::root(suite).join(".ready").exists() {
            return Some(format!(
                "there is no root file system; run integration-tests/make-root {suite}"
            ));
        }
        let tried = self.try_programs().err()?;
        Some(format!("Drover's programs do not run there: {tried:#}"))
    }

    /// Tries Drover's programs on the C library of the suite, which may be older than the one that they were built with.
    fn try_programs(self) -> Result<()> {
        machine(&[
            "unshare",
            "--mount",
            "sh",
            "-ec",
            "mount --bind \"$1\" \"$2/mnt\"; exec chroot \"$2\" /mnt/drover --version",
            "try",
            &cache::binaries()?.to_string_lossy(),
            &cache::root(self.suite()).to_string_lossy(),
        ])?;
        Ok(())
    }
}

impl fmt::Display for Release {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.version())
    }
}

impl Host {
    /// Starts the engine, with further flags, and waits until it answers.
    ///
    /// # Errors
    /// Fails when it does not answer.
    pub fn start_engine(&mut self, flags: &str) -> Result<()> {
        self.begin_engine(flags)?;
        self.wait_for_engine()
    }

    /// Starts the engine and does not wait until it answers.
    ///
    /// # Errors
    /// Fails when it cannot be started.
    pub fn begin_engine(&mut self, flags: &str) -> Result<()> {
        let own = self.engine_flags();
        // Without a service manager nobody else removes what a killed engine left.
        self.run("rm -f /var/run/docker.pid /var/run/docker.sock")?;
        self.start(&format!("exec dockerd {own} {flags}"), LOG)
    }

    /// The flags that every engine of the lab has.
    #[must_use]
    pub fn engine_flags(&self) -> String {
        let group = self.control_group();
        format!("--exec-opt native.cgroupdriver=cgroupfs --cgroup-parent={group}")
    }

    /// Waits until the engine answers.
    ///
    /// # Errors
    /// Fails when it does not.
    pub fn wait_for_engine(&self) -> Result<()> {
        wait::until(
            &format!("the engine of {}", self.name),
            wait::seconds(90),
            || {
                self.run(
                    "test -S /var/run/docker.sock && docker version --format '{{.Server.Version}}'",
                )
            },
        )?;
        Ok(())
    }

    /// Ends the engine with a signal (`TERM`, `KILL`). A killed engine's containerd runs on, as a service of
    /// its own would.
    ///
    /// # Errors
    /// Fails when it does not end.
    pub fn stop_engine(&self, signal: &str) -> Result<()> {
        self.kill("dockerd", signal)
    }
}
