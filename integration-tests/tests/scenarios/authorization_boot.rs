//! A host that boots with systemd as its first process: the units order the plugin before the engine and keep it there, nobody is locked
//! out, and nobody let in.
//!
//! The host of the lab is booted once more inside of itself: the same files and network, but process ids, mounts and control groups of
//! its own, and nothing that runs but what systemd starts.

use anyhow::{Context as _, Result, ensure};
use integration_tests::engine;
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::process::Output;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "authorization_boots_with_systemd_before_the_engine",
    setup: Setup::Engines(1),
    needs: &[],
    run: boots,
}];

/// The units, as they are installed.
const UNITS: &[(&str, &str)] = &[
    (
        "drover-authz.service",
        include_str!("../../../packaging/systemd/drover-authz.service"),
    ),
    (
        "drover-authz.socket",
        include_str!("../../../packaging/systemd/drover-authz.socket"),
    ),
];
const SETUP: &str = "/etc/drover/policy/authorization.toml";
const SETTINGS: &str = "/etc/docker/daemon.json";
/// The engine asks the plugin. The rest is for want of systemd's bus, which has the control groups else.
const ASKS: &str =
    r#"{"authorization-plugins": ["drover-authz"], "exec-opts": ["native.cgroupdriver=cgroupfs"]}"#;
const ASKS_NOBODY: &str = r#"{"exec-opts": ["native.cgroupdriver=cgroupfs"]}"#;

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

fn boots(lab: &mut Lab) -> Result<()> {
    let host = lab.host(0)?;
    no_engine_without_its_plugin(host)?;
    install(host)?;
    let machine = Machine::boot(host)?;
    machine.engine_answers()?;
    machine.run("docker rm $(docker create --privileged -v /:/host lab true)")?;
    wait::until("the decision in the log", wait::seconds(10), || {
        machine.run("grep ContainerCreate /var/lib/drover/authz/decisions.log")
    })?;
    machine.is_in_order()?;

    // The plugin is killed: the next question has it started, and the engine is the same.
    let before = machine.run("pidof dockerd")?;
    machine.run("kill -9 $(pidof drover-authz)")?;
    machine.run("docker ps")?;
    ensure!(machine.run("pidof dockerd")? == before, "another engine");

    without_its_socket(&machine)?;

    // A policy that became bad while the host was off lets nobody in, root neither.
    machine.host.write(SETUP, "nonsense")?;
    let machine = machine.reboot()?;
    machine.is_denied()?;
    // Both ways back in, as they are documented.
    machine.host.write(SETUP, "mode = \"monitor\"\n")?;
    wait::until("monitor mode", wait::seconds(20), || {
        machine.run("docker rm $(docker create --privileged lab true)")
    })?;
    machine.host.write(SETUP, "mode = \"enforce\"\n")?;
    machine.is_denied()?;
    machine.host.write(SETTINGS, ASKS_NOBODY)?;
    machine.run("systemctl restart docker.service")?;
    machine.engine_answers()?;
    machine.run("docker rm $(docker create --privileged lab true)")?;
    machine.power_off()
}

/// An engine that names the plugin ends when nobody is at its socket: nobody is let in.
fn no_engine_without_its_plugin(host: &mut Host) -> Result<()> {
    host.stop_engine("TERM")?;
    host.begin_engine("--authorization-plugin=drover-authz")?;
    wait::until("the end of the engine", wait::seconds(60), || {
        let said = host.tail(engine::LOG, 3);
        ensure!(said.contains("authorization plugin"), "{said}");
        let left = host.processes("dockerd")?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    host.refused("docker ps").map(drop)
}

/// The engine is not started without the unit, and with it the socket comes with the engine, whoever calls for that.
fn without_its_socket(machine: &Machine<'_>) -> Result<()> {
    let unit = "/etc/systemd/system/drover-authz.socket";
    machine.run(
        "systemctl stop docker.socket docker.service drover-authz.socket drover-authz.service",
    )?;
    machine.run(&format!("mv {unit} /root/ && systemctl daemon-reload"))?;
    machine.refused("systemctl start docker.service")?;
    machine.refused("pidof dockerd")?;
    machine.run(&format!(
        "mv /root/drover-authz.socket {unit} && systemctl daemon-reload && systemctl start docker.socket"
    ))?;
    machine.engine_answers()?;
    machine
        .run("systemctl is-active drover-authz.socket && pidof drover-authz")
        .map(drop)
}

/// The units and programs, as a package would have them.
fn install(host: &Host) -> Result<()> {
    host.run("mkdir -p /etc/drover/policy && cp $(command -v drover-authz) $(command -v drover) /usr/bin/")?;
    host.write(SETUP, "[roles]\nadmin = [\"local\"]\n")?;
    host.write(SETTINGS, ASKS)?;
    for (name, text) in UNITS {
        host.write(&format!("/etc/systemd/system/{name}"), text)?;
    }
    let said = host.attempt(
        "cd /etc/systemd/system && systemd-analyze verify ./drover-authz.service ./drover-authz.socket",
    )?;
    // It looks at the units of the system, too, which are not ours to mend.
    let faults = said.stderr.contains("drover-authz");
    ensure!(said.code == Some(0) && !faults, "{said:?}");
    host.run(
        "systemctl enable drover-authz.socket drover-authz.service docker.service && \
         systemctl mask console-getty.service systemd-sysctl.service systemd-udevd.service systemd-networkd-wait-online.service etcd.service xfs_healer_start.service",
    )
    .map(drop)
}

/// What systemd has booted.
struct Machine<'a> {
    host: &'a mut Host,
    /// The id of systemd in the host.
    init: u32,
}

impl<'a> Machine<'a> {
    fn boot(host: &'a mut Host) -> Result<Self> {
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

    fn attempt(&self, script: &str) -> Result<Output> {
        let script = script.replace('\'', r"'\''");
        self.host.attempt(&format!(
            "nsenter -t {} -m -p -u -i -C sh -c '{script}'",
            self.init
        ))
    }

    fn run(&self, script: &str) -> Result<String> {
        self.attempt(script)?.succeeded()
    }

    fn refused(&self, script: &str) -> Result<String> {
        self.attempt(script)?.failed()
    }

    fn is_denied(&self) -> Result<()> {
        wait::until("a denial", wait::seconds(60), || {
            let said = self.refused("docker create lab true")?;
            ensure!(said.contains("authorization denied"), "{said}");
            Ok(())
        })?;
        Ok(())
    }

    fn engine_answers(&self) -> Result<()> {
        let asked = wait::until("the engine", wait::seconds(60), || {
            self.run("docker version")
        });
        asked.map(drop).with_context(|| {
            let said = self.attempt("journalctl --no-pager -n 60");
            said.map_or_else(|error| error.to_string(), |said| said.stdout)
        })
    }

    /// The socket was there before the engine was started, and nothing has failed.
    fn is_in_order(&self) -> Result<()> {
        let at = |unit: &str, property: &str| -> Result<u64> {
            let said = self.run(&format!("systemctl show --value -p {property} {unit}"))?;
            Ok(said.parse()?)
        };
        let socket = at("drover-authz.socket", "ActiveEnterTimestampMonotonic")?;
        let engine = at("docker.service", "InactiveExitTimestampMonotonic")?;
        ensure!(
            socket > 0 && socket < engine,
            "the socket at {socket} us, the engine at {engine} us"
        );
        let failed =
            self.run("systemctl list-units --failed --plain --no-legend 'drover*' 'docker*'")?;
        ensure!(failed.is_empty(), "{failed}");
        Ok(())
    }

    /// Ends everything in it.
    fn power_off(self) -> Result<()> {
        self.host.kill("systemd", "KILL")
    }

    fn reboot(self) -> Result<Self> {
        self.host.kill("systemd", "KILL")?;
        Self::boot(self.host)
    }
}
