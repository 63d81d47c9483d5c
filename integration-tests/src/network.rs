//! The lab's underlay: a switch and router in a namespace, two links of hosts, and an outside.

use std::process::{Child, Command, Stdio};

use anyhow::{Result, bail};

use crate::process::{self, machine};
use crate::wait;

/// The address of the machine that is neither a host nor the switch.
pub const OUTSIDE: &str = "198.51.100.2";
/// What resolves names there: none.
const OUTSIDE_DNS: &str = concat!(
    "exec perl - <<'EOF'\n",
    include_str!("../lab/outside-dns"),
    "\nEOF"
);
/// The same machine over IPv6.
pub const OUTSIDE_V6: &str = "2001:db8:3::2";

/// Where a host hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// 192.0.2.0/24: hosts here share a link.
    Near,
    /// 203.0.113.0/24: behind the router.
    Far,
}

impl Site {
    /// The address of the host with a number.
    #[must_use]
    pub fn address(self, number: u8) -> String {
        match self {
            Self::Near => format!("192.0.2.{number}"),
            Self::Far => format!("203.0.113.{number}"),
        }
    }

    /// The IPv6 address of the host with a number.
    #[must_use]
    pub fn address_v6(self, number: u8) -> String {
        match self {
            Self::Near => format!("2001:db8:1::{number}"),
            Self::Far => format!("2001:db8:2::{number}"),
        }
    }

    const fn bridge(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
        }
    }
}

/// A network namespace that lasts as long as this value.
#[derive(Debug)]
pub struct Namespace {
    keeper: Child,
}

impl Namespace {
    /// Makes one with its loopback up.
    ///
    /// # Errors
    /// Fails when the machine allows no namespaces.
    pub fn create() -> Result<Self> {
        let mut command = process::in_own_namespaces(&["--net", "--", "sleep", "infinity"]);
        let keeper = command.stdin(Stdio::null()).spawn()?;
        let namespace = Self { keeper };
        let own = std::fs::read_link("/proc/self/ns/net")?;
        wait::until("a network namespace", wait::seconds(5), || {
            let its = std::fs::read_link(format!("/proc/{}/ns/net", namespace.pid()))?;
            if its == own {
                bail!("it has not been entered yet");
            }
            Ok(())
        })?;
        namespace.run("ip link set lo up")?;
        Ok(namespace)
    }

    /// The process that keeps it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.keeper.id()
    }

    /// A shell command in it, on the machine's file system.
    #[must_use]
    pub fn command(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.pid().to_string(),
            "--net",
            "--",
            "sh",
            "-ec",
            script,
        ]);
        command
    }

    /// Runs a shell command in it.
    ///
    /// # Errors
    /// Fails when the command does.
    pub fn run(&self, script: &str) -> Result<String> {
        process::output(&mut self.command(script), script)?.succeeded()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The only failure is that it has ended already.
        let _killed = self.keeper.kill();
        let _waited = self.keeper.wait();
    }
}

/// The switch that hosts hang on, which is the router between the links and the outside too.
#[derive(Debug)]
pub struct Underlay {
    switch: Namespace,
    outside: Namespace,
    resolver: Child,
}

impl Underlay {
    /// Makes it, with no host on it.
    ///
    /// # Errors
    /// Fails when the kernel lacks bridges or veth.
    pub fn create() -> Result<Self> {
        let switch = Namespace::create()?;
        let outside = Namespace::create()?;
        switch.run(
            "ip link add near type bridge; ip link add far type bridge
             ip addr add 192.0.2.254/24 dev near; ip addr add 2001:db8:1::fe/64 dev near nodad
             ip addr add 203.0.113.254/24 dev far; ip addr add 2001:db8:2::fe/64 dev far nodad
             ip link set near up; ip link set far up
             echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
        )?;
        veth(("outside", switch.pid()), ("eth0", outside.pid()))?;
        switch.run(
            "ip addr add 198.51.100.1/24 dev outside; ip addr add 2001:db8:3::1/64 dev outside nodad
             ip link set outside up",
        )?;
        outside.run(
            "ip addr add 198.51.100.2/24 dev eth0; ip addr add 2001:db8:3::2/64 dev eth0 nodad
             ip link set eth0 up
             ip route add default via 198.51.100.1; ip route add default via 2001:db8:3::1",
        )?;
        let mut resolver = outside.command(OUTSIDE_DNS);
        let resolver = resolver.stdin(Stdio::null()).spawn()?;
        Ok(Self {
            switch,
            outside,
            resolver,
        })
    }

    /// The machine outside.
    #[must_use]
    pub const fn outside(&self) -> &Namespace {
        &self.outside
    }

    /// The switch.
    #[must_use]
    pub const fn switch(&self) -> &Namespace {
        &self.switch
    }

    /// Plugs a host in: its `eth0` gets the addresses of its number and its default routes.
    ///
    /// # Errors
    /// Fails when the device cannot be made.
    pub fn plug(&self, site: Site, number: u8, host: u32) -> Result<()> {
        let port = format!("host{number}");
        let bridge = site.bridge();
        // The port of a host that was switched off goes with its namespace, but not at once.
        self.switch
            .run(&format!("ip link del {port} 2>/dev/null || true"))?;
        veth((&port, self.switch.pid()), ("eth0", host))?;
        self.switch.run(&format!(
            "ip link set {port} master {bridge}; ip link set {port} up"
        ))?;
        let (router, router_v6) = (
            site.address(254),
            match site {
                Site::Near => "2001:db8:1::fe",
                Site::Far => "2001:db8:2::fe",
            },
        );
        let script = format!(
            "ip addr add {}/24 dev eth0; ip addr add {}/64 dev eth0 nodad; ip link set eth0 up
             ip route add default via {router}; ip route add default via {router_v6}",
            site.address(number),
            site.address_v6(number),
        );
        machine(&[
            "nsenter",
            "--target",
            &host.to_string(),
            "--net",
            "--",
            "sh",
            "-ec",
            &script,
        ])?;
        Ok(())
    }

    /// Cuts a host off, or lets it back.
    ///
    /// # Errors
    /// Fails when there is no such host.
    pub fn connected(&self, number: u8, connected: bool) -> Result<()> {
        let state = if connected { "up" } else { "down" };
        self.switch
            .run(&format!("ip link set host{number} {state}"))?;
        Ok(())
    }
}

impl Drop for Underlay {
    fn drop(&mut self) {
        // The only failure is that it has ended already.
        let _killed = self.resolver.kill();
        let _waited = self.resolver.wait();
    }
}

/// Makes a pair of devices, each in the namespace of a process.
fn veth(one: (&str, u32), other: (&str, u32)) -> Result<()> {
    machine(&[
        "ip",
        "link",
        "add",
        "name",
        one.0,
        "netns",
        &one.1.to_string(),
        "type",
        "veth",
        "peer",
        "name",
        other.0,
        "netns",
        &other.1.to_string(),
    ])?;
    Ok(())
}
