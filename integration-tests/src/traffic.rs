//! Traffic between containers, and what became of it.

use anyhow::{Context, Result, bail, ensure};

use crate::host::Host;
use crate::wait;

/// A flow of one packet every 20 ms that runs while something else happens.
#[derive(Debug)]
pub struct Flow {
    log: String,
    pid: u32,
}

/// What a flow has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Losses {
    /// Packets sent.
    pub sent: u32,
    /// Answers received.
    pub received: u32,
}

impl Host {
    /// Checks that a container reaches an address within a limit; `0` is: at the first packet.
    ///
    /// # Errors
    /// Fails when it does not.
    pub fn reaches(&self, container: &str, address: &str, limit: u64) -> Result<()> {
        wait::until(
            &format!("{container} reaches {address}"),
            wait::seconds(limit),
            || self.inside(container, &format!("ping -c 1 -W 1 {address}")),
        )?;
        Ok(())
    }

    /// Checks that a container does not reach an address.
    ///
    /// # Errors
    /// Fails when it does.
    pub fn does_not_reach(&self, container: &str, address: &str) -> Result<()> {
        self.refused(&format!(
            "docker exec {container} ping -c 3 -i 0.3 -W 1 {address}"
        ))
        .with_context(|| format!("{container} reaches {address}"))?;
        Ok(())
    }

    /// Checks that the largest packet that a container's link allows reaches an address whole.
    ///
    /// # Errors
    /// Fails when it does not.
    pub fn sends_full_size(&self, container: &str, address: &str) -> Result<u32> {
        let route = self
            .beside(container, &format!("ip route get {address}"))?
            .succeeded()?;
        let device = route
            .split_whitespace()
            .skip_while(|word| *word != "dev")
            .nth(1)
            .with_context(|| format!("no device in: {route}"))?
            .to_owned();
        let mtu: u32 = self
            .inside(container, &format!("cat /sys/class/net/{device}/mtu"))?
            .parse()?;
        ensure!(mtu >= 1280, "the MTU of {device} in {container} is {mtu}");
        // The headers of IPv4 or IPv6, and of ICMP.
        let payload = mtu - if address.contains(':') { 48 } else { 28 };
        self.beside(
            container,
            &format!("ping -M do -s {payload} -c 2 -i 0.2 -W 2 {address}"),
        )?
        .succeeded()
        .with_context(|| format!("a full-size packet of {mtu} bytes is lost"))?;
        Ok(mtu)
    }

    /// Sends noise from a container to one of another host over TCP, and checks that it arrives whole.
    ///
    /// # Errors
    /// Fails when it does not.
    pub fn carries_whole(
        &self,
        from: &str,
        (receiver, to, address): (&Host, &str, &str),
        megabytes: u32,
    ) -> Result<()> {
        // A little noise many times over: the sum of it all is known before it is sent.
        self.inside(from, "sh -c 'head -c 8388608 /dev/urandom > /tmp/noise'")?;
        let all = format!(
            "i=0; while [ $i -lt {} ]; do cat /tmp/noise; i=$((i + 1)); done",
            megabytes.div_ceil(8)
        );
        let expected = self.inside(from, &format!("sh -c '({all}) | md5sum'"))?;
        receiver.run(&format!("docker exec {to} rm -f /tmp/open /tmp/sum"))?;
        receiver.run(&format!(
            "docker exec -d {to} sh -c 'mkfifo /tmp/open; nc -l -p 5000 <>/tmp/open | md5sum > /tmp/sum.new; mv /tmp/sum.new /tmp/sum'"
        ))?;
        wait::until("a listener", wait::seconds(10), || {
            receiver.inside(to, "sh -c 'grep -q :1388 /proc/net/tcp /proc/net/tcp6'")
        })?;
        self.inside(from, &format!("sh -c '({all}) | nc {address} 5000'"))?;
        let (arrived, _) = wait::until("the end of the transfer", wait::seconds(60), || {
            receiver.inside(to, "cat /tmp/sum")
        })?;
        ensure!(arrived == expected, "sent {expected}, got {arrived}");
        Ok(())
    }

    /// Begins a flow from a container to an address, once the first answer is there.
    ///
    /// # Errors
    /// Fails when no answer comes.
    pub fn flow(&mut self, container: &str, address: &str) -> Result<Flow> {
        let pid = self.pid_of(container)?;
        let log = format!("flow-{container}-{}.log", address.replace([':', '.'], "-"));
        self.run(&format!("rm -f /var/log/{log}"))?;
        self.start(
            &format!("echo $$; exec nsenter --target {pid} --net -- ping -n -O -i 0.02 {address}"),
            &log,
        )?;
        wait::until("the first answer of a flow", wait::seconds(5), || {
            let said = self.tail(&log, 50);
            ensure!(said.contains("bytes from"), "the flow has said: {said}");
            Ok(())
        })?;
        let text = std::fs::read_to_string(self.log(&log))?;
        let pid = text.lines().next().context("the flow's process")?.parse()?;
        Ok(Flow { log, pid })
    }

    /// Ends a flow and counts.
    ///
    /// # Errors
    /// Fails when it has ended by itself.
    pub fn end_flow(&self, flow: &Flow) -> Result<Losses> {
        self.run(&format!("kill -INT {}", flow.pid))?;
        let (losses, _) = wait::until("the count of a flow", wait::seconds(5), || {
            let said = self.tail(&flow.log, 5);
            let line = said
                .lines()
                .find(|line| line.contains("packets transmitted"))
                .with_context(|| format!("the flow has said: {said}"))?;
            let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
            match (numbers.next(), numbers.next()) {
                (Some(sent), Some(received)) => Ok(Losses { sent, received }),
                _ => bail!("no counts in: {line}"),
            }
        })?;
        Ok(losses)
    }

    /// Fetches a page.
    ///
    /// # Errors
    /// Fails when there is no answer.
    pub fn fetch(&self, url: &str) -> Result<String> {
        self.run(&format!("curl -g -sS -m 5 {url}"))
    }
}

impl Losses {
    /// Fails when more was lost than the packets of so many milliseconds.
    ///
    /// # Errors
    /// Fails with the counts.
    pub fn at_most(self, milliseconds: u32) -> Result<()> {
        // The last packet may be under way when the flow ends.
        let lost = self.sent.saturating_sub(self.received).saturating_sub(1);
        ensure!(
            lost * 20 <= milliseconds,
            "{lost} of {} packets were lost, which is {} ms; {milliseconds} ms are allowed",
            self.sent,
            lost * 20
        );
        Ok(())
    }
}
