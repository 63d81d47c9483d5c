//! PostgreSQL under load on a thin volume: what snapshots, clones and backups of it hold. It runs in the image that
//! `integration-tests/make-image` has built, without an engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use drover_control_api::volume::CreateSnapshot;
use drover_testkit::capability::{Capability, can_test};
use serde_json::json;

use crate::plugin::{Plugin, said};
use crate::thin::back_up;

const BIN: &str = "/usr/lib/postgresql/15/bin";
const PATIENCE: Duration = Duration::from_secs(300);

/// A PostgreSQL on a volume. It is killed when this is dropped.
struct Server {
    root: PathBuf,
    name: String,
    children: Vec<Child>,
}

/// The files of the image, with what a database needs of devices.
fn image(folder: &Path) -> PathBuf {
    let cache = std::env::var_os("DROVER_CACHE").map(PathBuf::from);
    let cache = cache
        .unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/drover"));
    let archive = cache.join("images/databases.tar");
    assert!(
        archive.exists(),
        "there is no {}: run integration-tests/make-image",
        archive.display()
    );
    let root = folder.join("image");
    fs::create_dir(&root).unwrap();
    said(
        Command::new("tar")
            .arg("-C")
            .arg(&root)
            .arg("-xf")
            .arg(&archive)
            .args([
                "--exclude=./dev/*",
                "--exclude=*/mysql*",
                "--exclude=*/mariadb*",
                "--exclude=*/doc/*",
                "--exclude=*/locale/*",
            ]),
    );
    let script = "chmod 755 $0 && mount -t tmpfs -o mode=755 tmpfs $0/dev && mknod -m 666 $0/dev/null c 1 3 && mknod -m 666 $0/dev/zero c 1 5 && \
                  mknod -m 666 $0/dev/urandom c 1 9 && mkdir -m 1777 $0/dev/shm";
    said(Command::new("sh").args(["-ec", script]).arg(&root));
    root
}

impl Server {
    fn start(plugin: &Plugin, root: &Path, name: &str) -> Self {
        let data = root.join(format!("data-{name}"));
        fs::create_dir_all(&data).unwrap();
        let at = plugin.mount(name, "test");
        said(Command::new("mount").arg("--bind").arg(at).arg(&data));
        let mut server = Self {
            root: root.to_owned(),
            name: name.to_owned(),
            children: Vec::new(),
        };
        server.begin(&format!(
            "mkdir -p /tmp/{name}; test -e /data-{name}/db || {BIN}/initdb -D /data-{name}/db -A trust; \
             exec {BIN}/postgres -D /data-{name}/db -k /tmp/{name} -h ''"
        ));
        let began = Instant::now();
        while server.run("psql -X -At -c 'SELECT 1'").is_err() {
            let ended = server.children[0].try_wait().unwrap();
            assert!(ended.is_none(), "{name}: {}", server.log());
            assert!(began.elapsed() < PATIENCE, "{name}: {}", server.log());
            sleep(Duration::from_secs(1));
        }
        server
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg("--userspec=postgres:postgres").arg(&self.root);
        command.args([
            "/bin/sh",
            "-c",
            &format!("export LC_ALL=C PGHOST=/tmp/{}; {script}", self.name),
        ]);
        command.stdin(Stdio::null());
        command
    }

    fn begin(&mut self, script: &str) {
        let log = self.root.join(format!("tmp/{}.log", self.name));
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        let mut command = self.shell(script);
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn();
        self.children.push(child.unwrap());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.root.join(format!("tmp/{}.log", self.name))).unwrap_or_default()
    }

    fn run(&self, script: &str) -> Result<String, String> {
        let done = self.shell(script).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if done.status.success() {
            Ok(text(&done.stdout))
        } else {
            Err(text(&done.stderr))
        }
    }

    fn query(&self, statement: &str) -> String {
        let done = self.run(&format!(
            "psql -X -At -v ON_ERROR_STOP=1 -c \"{statement}\""
        ));
        done.unwrap_or_else(|error| panic!("{}: {error}: {}", self.name, self.log()))
    }

    /// The latest number whose insertion was acknowledged.
    fn said(&self) -> u64 {
        let text = fs::read_to_string(self.root.join("tmp/said")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// Kills it with everything that it has begun, as a power cut would.
    fn kill(&mut self) {
        for child in &mut self.children {
            let pid = child.id().to_string();
            // Those that it has begun end with it: PostgreSQL's see that their parent is gone.
            drop(
                Command::new("sh")
                    .args(["-c", "kill -9 $(cat /proc/$0/task/*/children) $0", &pid])
                    .stderr(Stdio::null())
                    .status(),
            );
            drop(child.wait());
        }
        self.children.clear();
        // They let go of the volume within moments.
        let data = self.root.join(format!("data-{}", self.name));
        for _ in 0..100 {
            if Command::new("umount")
                .arg(&data)
                .stderr(Stdio::null())
                .status()
                .unwrap()
                .success()
            {
                return;
            }
            sleep(Duration::from_millis(200));
        }
        panic!("`{}` stays mounted", data.display());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.children.is_empty() {
            self.kill();
        }
    }
}

/// A volume of these options has a sound database, with all that had been acknowledged.
fn holds(plugin: &Plugin, root: &Path, options: &serde_json::Value, acknowledged: u64) {
    let mut options = options.clone();
    options["on-remove"] = json!("delete");
    plugin.create("copy", &options);
    let mut copy = Server::start(plugin, root, "copy");
    let there = copy.query("SELECT count(*), max(id) FROM said");
    let (count, last) = there.split_once('|').unwrap();
    let (count, last): (u64, u64) = (count.parse().unwrap(), last.parse().unwrap());
    assert!(
        count == last && last >= acknowledged,
        "{options}: {there}, {acknowledged} acknowledged"
    );
    // Every transaction of pgbench changes all of these by the same.
    let sums = copy.query(
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(tbalance) FROM pgbench_tellers), \
         (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history), \
         (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM pgbench_branches), \
         (SELECT count(*) > 0 FROM pgbench_history)",
    );
    assert_eq!(sums, "t|t|t|t", "{options}");
    copy.run(&format!(
        "{BIN}/pg_amcheck --install-missing --heapallindexed --parent-check -d postgres"
    ))
    .unwrap();
    copy.kill();
    plugin.unmount("copy", "test");
    plugin.remove("copy");
    println!("{options}: {acknowledged} acknowledged transactions, {last} there");
}

#[test]
fn postgres_under_load_is_whole_in_snapshots_and_backups() {
    if !can_test(&[Capability::DeviceMapper]) {
        return;
    }
    let plugin = Plugin::start("thin");
    let root = image(plugin.folder());
    let passwd = fs::read_to_string(root.join("etc/passwd")).unwrap();
    let line = passwd
        .lines()
        .find(|line| line.starts_with("postgres:"))
        .unwrap();
    let ids: Vec<_> = line.split(':').skip(2).take(2).collect();
    let place = json!({
        "backup-to": plugin.path("repository"), "backup-password-file": plugin.path("password"),
    });
    let mut options = place.clone();
    options["size"] = json!("256M");
    options["owner"] = json!(ids.join(":"));
    options["mode"] = json!("0700");
    plugin.create("pg", &options);
    let mut server = Server::start(&plugin, &root, "pg");
    server
        .run(&format!("{BIN}/pgbench -q -i -s 1 postgres"))
        .unwrap();
    server.query("CREATE TABLE said (id bigint PRIMARY KEY)");
    // What is acknowledged is noted beside the volume, after the answer.
    server.begin(
        "i=0; while i=$((i + 1)); do psql -X -q -c \"INSERT INTO said VALUES ($i)\" || exit; \
         echo $i > /tmp/said.new; mv /tmp/said.new /tmp/said; done",
    );
    server.begin(&format!("{BIN}/pgbench -c 4 -j 2 -T 3000 postgres"));
    let began = Instant::now();
    while server.said() < 3 {
        assert!(began.elapsed() < PATIENCE, "{}", server.log());
        sleep(Duration::from_secs(1));
    }
    let mut taken = Vec::new();
    for name in ["one", "two"] {
        sleep(Duration::from_secs(3));
        let acknowledged = server.said();
        let snapshot = plugin.ask(&CreateSnapshot {
            volumes: vec!["pg".parse().unwrap()],
            name: name.parse().unwrap(),
        });
        assert_eq!(snapshot.complaints, Vec::<String>::new());
        taken.push((json!({"from": format!("pg@{name}")}), acknowledged));
    }
    let before = server.said();
    back_up(&plugin);
    let mut from_backup = place;
    from_backup["from-backup"] = json!("pg");
    taken.push((from_backup, before));
    assert!(
        server.said() > before,
        "nothing was written while the backup was made"
    );
    // Killed under load, and then its volume as it is.
    let before = server.said();
    server.kill();
    taken.push((json!({"from": "pg"}), before));
    for (options, acknowledged) in taken {
        holds(&plugin, &root, &options, acknowledged);
    }
    let mut again = Server::start(&plugin, &root, "pg");
    again.kill();
    plugin.unmount("pg", "test");
    said(Command::new("umount").arg(root.join("dev")));
}
