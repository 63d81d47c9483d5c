//! A lab: an underlay with hosts on it.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write as _;

use anyhow::{Context, Result, bail, ensure};

use crate::cache::{self, RunDirectory};
use crate::drover;
use crate::engine::{self, Release};
use crate::host::Host;
use crate::network::{Site, Underlay};
use crate::process::machine;
use crate::wait;

/// The image that the lab's containers run.
pub const IMAGE: &str = "lab";

/// A lab. Dropping it switches everything off.
#[derive(Debug)]
pub struct Lab {
    /// The engine of its hosts.
    pub release: Release,
    /// Its hosts; the first has number 1.
    pub hosts: Vec<Host>,
    /// What they hang on.
    pub underlay: Underlay,
    run: RunDirectory,
    next: u8,
}

impl Lab {
    /// A lab with a number of hosts on one link, their engines started.
    ///
    /// # Errors
    /// Fails when the machine cannot do it.
    pub fn start(release: Release, hosts: u8) -> Result<Self> {
        let run = RunDirectory::create()?;
        let underlay = Underlay::create().context("making the underlay")?;
        let mut lab = Self {
            release,
            hosts: Vec::new(),
            underlay,
            run,
            next: 1,
        };
        let places = (0..hosts).map(|_| lab.begin_host(Site::Near));
        let places = places.collect::<Result<Vec<_>>>()?;
        for place in places {
            lab.finish_host(place)?;
        }
        Ok(lab)
    }

    /// A further host with a running engine and the lab's image; its place in `hosts`.
    ///
    /// # Errors
    /// Fails when it does not come up.
    pub fn add_host(&mut self, site: Site) -> Result<usize> {
        let place = self.begin_host(site)?;
        self.finish_host(place)?;
        Ok(place)
    }

    /// Switches a host on and starts its engine.
    fn begin_host(&mut self, site: Site) -> Result<usize> {
        let number = self.next;
        self.next += 1;
        let host = Host::boot(&self.underlay, self.release, site, number, self.run.path())?;
        self.hosts.push(host);
        let place = self.hosts.len() - 1;
        self.host(place)?.begin_engine("")?;
        Ok(place)
    }

    /// Waits for a host's engine, and gives it the lab's image.
    fn finish_host(&mut self, place: usize) -> Result<()> {
        let host = self.host(place)?;
        host.wait_for_engine()?;
        let archive = image()?;
        let mut import = host.command(&format!("docker import - {IMAGE}"), wait::seconds(120))?;
        let done = import.stdin(File::open(&archive)?).output()?;
        ensure!(
            done.status.success(),
            "docker import: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(())
    }

    /// The last host, switched off for good.
    pub fn remove_last_host(&mut self) {
        drop(self.hosts.pop());
    }

    /// A host by its place.
    ///
    /// # Errors
    /// Fails when there is none.
    pub fn host(&mut self, place: usize) -> Result<&mut Host> {
        self.hosts
            .get_mut(place)
            .with_context(|| format!("the lab has no host {place}"))
    }

    /// The first two hosts.
    ///
    /// # Errors
    /// Fails when there are fewer.
    pub fn pair(&self) -> Result<(&Host, &Host)> {
        match self.hosts.as_slice() {
            [one, two, ..] => Ok((one, two)),
            _ => bail!("the lab has fewer than two hosts"),
        }
    }

    /// The first two hosts, to start and stop things on.
    ///
    /// # Errors
    /// Fails when there are fewer.
    pub fn pair_mut(&mut self) -> Result<(&mut Host, &mut Host)> {
        match self.hosts.as_mut_slice() {
            [one, two, ..] => Ok((one, two)),
            _ => bail!("the lab has fewer than two hosts"),
        }
    }

    /// A network of Drover's made on the first host with further flags, once every host has it.
    ///
    /// # Errors
    /// Fails when a host has not got it within two seconds.
    pub fn network(&self, name: &str, flags: &str) -> Result<()> {
        let (one, _) = self.pair()?;
        one.run(&format!("{} {flags} {name}", drover::CREATE))?;
        for host in &self.hosts {
            host.wait_for_network(name, 2)?;
        }
        Ok(())
    }

    /// A network with a sleeping container `ann` on the first host and `bob` on the second; their addresses.
    ///
    /// # Errors
    /// Fails when one does not start.
    pub fn two_sleepers(&self, network: &str) -> Result<(String, String)> {
        self.network(network, "")?;
        let (one, two) = self.pair()?;
        one.sleeper("ann", &format!("--network {network}"))?;
        two.sleeper("bob", &format!("--network {network}"))?;
        Ok((
            one.address_of("ann", network)?,
            two.address_of("bob", network)?,
        ))
    }

    /// Checks that `drover doctor` finds nothing on any host.
    ///
    /// # Errors
    /// Fails with what it finds.
    pub fn doctor_is_clean(&self) -> Result<()> {
        for host in &self.hosts {
            wait::until(
                &format!("a clean doctor on {}", host.name),
                wait::seconds(20),
                || host.run("drover doctor"),
            )?;
        }
        Ok(())
    }

    /// Drover on every host, and the hosts in one cluster.
    ///
    /// # Errors
    /// Fails when Drover does not come up or a host cannot join.
    pub fn form_cluster(&mut self) -> Result<()> {
        self.form_cluster_with("")
    }

    /// The same, with variables that every `drover up` gets.
    ///
    /// # Errors
    /// Fails when Drover does not come up or a host cannot join.
    pub fn form_cluster_with(&mut self, variables: &str) -> Result<()> {
        for host in &mut self.hosts {
            host.drover_up_as(variables, "")?;
        }
        self.join_all()
    }

    /// The same, with hosts that reach each other by IPv6.
    ///
    /// # Errors
    /// Fails when Drover does not come up or a host cannot join.
    pub fn form_cluster_over_v6(&mut self) -> Result<()> {
        for host in &mut self.hosts {
            let address = host.address_v6();
            host.drover_up(&format!("--advertise-addr {address}"))?;
        }
        self.join_all()
    }

    fn join_all(&self) -> Result<()> {
        let Some((first, others)) = self.hosts.split_first() else {
            return Ok(());
        };
        for host in others {
            host.join(&first.invite()?)?;
        }
        let names: Vec<&str> = self.hosts.iter().map(|host| host.name.as_str()).collect();
        for host in &self.hosts {
            wait::until(
                &format!("all hosts in the status of {}", host.name),
                wait::seconds(20),
                || {
                    let status = host.run("drover status")?;
                    for name in &names {
                        ensure!(status.contains(name), "no {name} in: {status}");
                    }
                    Ok(())
                },
            )?;
        }
        Ok(())
    }

    /// Switches a host off and on again, and starts its engine and Drover as a service manager would:
    /// Drover first.
    ///
    /// # Errors
    /// Fails when it does not come back.
    pub fn reboot(&mut self, place: usize) -> Result<()> {
        self.reboot_to_engine(place)?;
        self.host(place)?.start_engine("")
    }

    /// Switches a host off and on again, and starts Drover; its engine is still to be started.
    ///
    /// # Errors
    /// Fails when Drover does not come back.
    pub fn reboot_to_engine(&mut self, place: usize) -> Result<()> {
        let host = self.hosts.get_mut(place).context("no such host")?;
        host.switch_off();
        host.switch_on(&self.underlay)?;
        host.start("exec drover up", drover::LOG)?;
        wait::until("Drover's sockets", wait::seconds(30), || {
            host.run("test -S /run/docker/plugins/drover-net.sock && test -S /run/docker/plugins/drover-ipam.sock")
        })?;
        Ok(())
    }

    /// Tells something that was measured, beside whether all is well.
    pub fn report(&self, line: &str) {
        // Nobody is left to be told when standard output is closed.
        let _told = writeln!(
            std::io::stdout().lock(),
            "        engine {:<6} {line}",
            self.release.version()
        );
    }

    /// The ends of all logs, for a person who looks for a cause.
    #[must_use]
    pub fn logs(&self, lines: usize) -> String {
        let mut text = String::new();
        for host in &self.hosts {
            for path in [drover::LOG, engine::LOG] {
                text.push_str(&format!(
                    "---- {} {path}\n{}\n",
                    host.name,
                    host.tail(path, lines)
                ));
            }
        }
        text
    }
}

/// The archive of the lab's image, made when it is not there yet. Another script makes another image.
fn image() -> Result<String> {
    let script = include_str!("../lab/make-image");
    let mut digest = DefaultHasher::new();
    script.hash(&mut digest);
    let name = format!("images/lab-{:016x}.tar", digest.finish());
    let archive = cache::directory().join(name);
    if !archive.exists() {
        if let Some(parent) = archive.parent() {
            fs::create_dir_all(parent)?;
        }
        let root = cache::root(Release::V26.suite());
        machine(&[
            "bash",
            "-c",
            script,
            "make-image",
            &root.to_string_lossy(),
            &archive.to_string_lossy(),
        ])?;
    }
    Ok(archive.to_string_lossy().into_owned())
}
