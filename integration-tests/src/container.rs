//! Containers on a host.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::host::Host;
use crate::lab::IMAGE;
use crate::process::Output;
use crate::wait;

impl Host {
    /// Starts a container that only sleeps.
    ///
    /// # Errors
    /// Fails when the engine does.
    pub fn sleeper(&self, name: &str, flags: &str) -> Result<()> {
        self.run(&format!(
            "docker run -d --name {name} {flags} {IMAGE} sleep 1000000"
        ))?;
        Ok(())
    }

    /// Starts a container that serves its name over HTTP on port 80.
    ///
    /// # Errors
    /// Fails when the engine does.
    pub fn web(&self, name: &str, flags: &str) -> Result<()> {
        self.run(&format!(
            "docker run -d --name {name} {flags} {IMAGE} sh -c 'echo this is {name} > /www/index.html; exec httpd -f -p 80 -h /www'"
        ))?;
        Ok(())
    }

    /// Runs a command in a container.
    ///
    /// # Errors
    /// Fails when the command does.
    pub fn inside(&self, container: &str, command: &str) -> Result<String> {
        self.run(&format!("docker exec {container} {command}"))
    }

    /// Runs a command of the host in a container's network.
    ///
    /// # Errors
    /// Fails when it cannot be started.
    pub fn beside(&self, container: &str, command: &str) -> Result<Output> {
        let pid = self.pid_of(container)?;
        self.attempt(&format!("nsenter --target {pid} --net -- {command}"))
    }

    /// The process of a container, as the host sees it.
    ///
    /// # Errors
    /// Fails when it does not run.
    pub fn pid_of(&self, container: &str) -> Result<u32> {
        let pid: u32 = self
            .run(&format!(
                "docker inspect -f '{{{{.State.Pid}}}}' {container}"
            ))?
            .parse()?;
        if pid == 0 {
            bail!("{container} does not run on {}", self.name);
        }
        Ok(pid)
    }

    /// The network namespace of a container, as the machine sees it.
    ///
    /// # Errors
    /// Fails when it does not run.
    pub fn network_of(&self, container: &str) -> Result<PathBuf> {
        let (init, pid) = (self.init()?, self.pid_of(container)?);
        Ok(PathBuf::from(format!(
            "/proc/{init}/root/proc/{pid}/ns/net"
        )))
    }

    /// A field of a container, network or image by a Go template.
    ///
    /// # Errors
    /// Fails when there is no such thing.
    pub fn inspect(&self, what: &str, template: &str) -> Result<String> {
        self.run(&format!("docker inspect -f '{template}' {what}"))
    }

    /// A container's IPv4 address on a network.
    ///
    /// # Errors
    /// Fails when it has none.
    pub fn address_of(&self, container: &str, network: &str) -> Result<String> {
        self.endpoint(container, network, "IPAddress")
    }

    /// A container's IPv6 address on a network.
    ///
    /// # Errors
    /// Fails when it has none.
    pub fn address_v6_of(&self, container: &str, network: &str) -> Result<String> {
        self.endpoint(container, network, "GlobalIPv6Address")
    }

    /// A field of a container's endpoint on a network.
    ///
    /// # Errors
    /// Fails when it has none.
    pub fn endpoint(&self, container: &str, network: &str, field: &str) -> Result<String> {
        let template = format!("{{{{(index .NetworkSettings.Networks \"{network}\").{field}}}}}");
        let value = self.inspect(container, &template)?;
        if value.is_empty() || value == "<no value>" {
            bail!("{container} has no {field} on {network}");
        }
        Ok(value)
    }

    /// The subnet of a network.
    ///
    /// # Errors
    /// Fails when the engine has no such network.
    pub fn subnet_of(&self, network: &str) -> Result<String> {
        self.run(&format!(
            "docker network inspect -f '{{{{range .IPAM.Config}}}}{{{{.Subnet}}}} {{{{end}}}}' {network}"
        ))
    }

    /// Waits until the engine has a network.
    ///
    /// # Errors
    /// Fails when it has not within two seconds, or what else is allowed.
    pub fn wait_for_network(&self, network: &str, limit: u64) -> Result<()> {
        wait::until(
            &format!("{network} on {}", self.name),
            wait::seconds(limit),
            || self.run(&format!("docker network inspect {network}")),
        )?;
        Ok(())
    }

    /// Waits until the engine has a network no more.
    ///
    /// # Errors
    /// Fails when it has it still.
    pub fn wait_for_no_network(&self, network: &str, limit: u64) -> Result<()> {
        wait::until(
            &format!("no {network} on {}", self.name),
            wait::seconds(limit),
            || self.refused(&format!("docker network inspect {network}")),
        )?;
        Ok(())
    }

    /// Removes every container, and every network that a person made.
    ///
    /// # Errors
    /// Fails when the engine does.
    pub fn clear(&self) -> Result<()> {
        self.run(
            "containers=$(docker ps -aq); [ -z \"$containers\" ] || docker rm -f -v $containers",
        )
        .context("removing containers")?;
        // One that another host still uses comes back; it goes with its last endpoint.
        self.run("for n in $(docker network ls -q --filter type=custom); do
             [ \"$(docker network inspect -f '{{.Name}}' $n)\" = docker_gwbridge ] || docker network rm $n; done; true")
            .context("removing networks")?;
        Ok(())
    }
}
