//! A host that boots with systemd as its first process.
//!
//! A host of the lab is booted once more inside of itself: the same files and network, but process ids, mounts and control groups of
//! its own, and nothing that runs but what systemd starts.

use anyhow::{Context as _, Result, ensure};

use crate::host::Host;
use crate::process::Output;
use crate::wait;

/// Units of the system that want a whole machine, or fail without one.
const NOT_FOR_A_LAB: &str = "console-getty.service systemd-sysctl.service \
     systemd-udevd.service systemd-networkd-wait-online.service \
     etcd.service xfs_healer_start.service";

/// Boots in the control group `$1` of the second version, whether the machine's first one is there as well or not.
const BOOT: &str = r#"
set -e
group=$(findmnt -n -o TARGET -t cgroup2 | head -n 1)$1/boot
mkdir -p "$group"
echo $$ > "$group/cgroup.procs"
exec unshare --mount --pid --uts --ipc --cgroup --fork --kill-child=KILL sh -ec '
    mount --make-rprivate /
    mount -t proc proc /proc
    # What belongs to the whole machine stays as it is.
    for name in kernel fs vm; do
        mount --bind /proc/sys/$name /proc/sys/$name
        mount -o remount,ro,bind /proc/sys/$name
    done
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mkdir -p /tmp/dev
    mount -t tmpfs -o mode=755 tmpfs /tmp/dev
    for name in null zero full random urandom tty; do
        touch /tmp/dev/$name
        mount --bind /dev/$name /tmp/dev/$name
    done
    touch /tmp/dev/console
    mount --bind /var/log/boot /tmp/dev/console
    mkdir /tmp/dev/pts /tmp/dev/shm
    mount -t devpts -o newinstance,ptmxmode=666 devpts /tmp/dev/pts
    ln -s pts/ptmx /tmp/dev/ptmx
    ln -s /proc/self/fd /tmp/dev/fd
    mount --move /tmp/dev /dev
    mount -t tmpfs -o mode=755 tmpfs /run
    exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --log-target=console </dev/null
'
"#;

/// What systemd has booted.
#[derive(Debug)]
pub struct Machine<'a> {
    /// The host that it is booted in.
    pub host: &'a mut Host,
    /// The id of systemd in the host.
    init: u32,
}

impl<'a> Machine<'a> {
    /// Boots a host whose processes have all ended, and its engine with it.
    ///
    /// # Errors
    /// Fails when systemd does not answer.
    pub fn boot(host: &'a mut Host) -> Result<Self> {
        host.run(&format!(
            "systemctl enable docker.service && systemctl mask {NOT_FOR_A_LAB}"
        ))?;
        host.write("/tmp/boot", BOOT)?;
        let group = host.control_group();
        host.start(&format!("exec sh /tmp/boot {group}"), "boot")?;
        let (init, _) = wait::until("systemd", wait::seconds(20), || {
            let found = host.processes("systemd")?;
            let said = || format!("it does not run: {}", host.tail("boot", 20));
            found.first().copied().with_context(said)
        })?;
        let machine = Self { host, init };
        wait::until("systemd's answer", wait::seconds(20), || {
            machine.run("systemctl list-units >/dev/null")
        })?;
        Ok(machine)
    }

    /// Runs a script in it.
    ///
    /// # Errors
    /// Fails when it cannot be run.
    pub fn attempt(&self, script: &str) -> Result<Output> {
        let script = script.replace('\'', r"'\''");
        self.host.attempt(&format!(
            "nsenter -t {} -m -p -u -i -C sh -c '{script}'",
            self.init
        ))
    }

    /// Runs a script that has to succeed; what it wrote.
    ///
    /// # Errors
    /// Fails when it does not.
    pub fn run(&self, script: &str) -> Result<String> {
        self.attempt(script)?.succeeded()
    }

    /// Runs a script that has to fail; what it complained of.
    ///
    /// # Errors
    /// Fails when it succeeds.
    pub fn refused(&self, script: &str) -> Result<String> {
        self.attempt(script)?.failed()
    }

    /// Waits for the engine.
    ///
    /// # Errors
    /// Fails, with the end of the journal, when it does not come.
    pub fn engine_answers(&self) -> Result<()> {
        let asked = wait::until("the engine", wait::seconds(60), || {
            self.run("docker version")
        });
        asked.map(drop).with_context(|| {
            let said = self.attempt("journalctl --no-pager -n 60");
            said.map_or_else(|error| error.to_string(), |said| said.stdout)
        })
    }

    /// A unit was up before the engine was started, and nothing has failed.
    ///
    /// # Errors
    /// Fails when it was not, or something has.
    pub fn came_before_the_engine(&self, unit: &str) -> Result<()> {
        let ready = self.moment(unit, "ActiveEnterTimestampMonotonic")?;
        let engine = self.moment("docker.service", "InactiveExitTimestampMonotonic")?;
        ensure!(
            ready > 0 && ready < engine,
            "{unit} at {ready} us, the engine at {engine} us"
        );
        self.nothing_failed()
    }

    /// The microsecond that systemd noted as a property of a unit; 0 for never.
    fn moment(&self, unit: &str, property: &str) -> Result<u64> {
        let said = self.run(&format!("systemctl show --value -p {property} {unit}"))?;
        Ok(said.parse()?)
    }

    /// No unit of the engine's or ours has failed.
    ///
    /// # Errors
    /// Fails when one has.
    pub fn nothing_failed(&self) -> Result<()> {
        let failed =
            self.run("systemctl list-units --failed --plain --no-legend 'drover*' 'docker*'")?;
        ensure!(failed.is_empty(), "{failed}");
        Ok(())
    }

    /// Ends everything in it, as a loss of power does.
    ///
    /// # Errors
    /// Fails when it cannot be ended.
    pub fn power_off(self) -> Result<()> {
        self.host.kill("systemd", "KILL")
    }

    /// Boots it again after a loss of power.
    ///
    /// # Errors
    /// Fails when systemd does not answer.
    pub fn reboot(self) -> Result<Self> {
        self.host.kill("systemd", "KILL")?;
        Self::boot(self.host)
    }
}
