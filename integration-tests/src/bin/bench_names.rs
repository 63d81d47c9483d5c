//! How fast names are answered in a container, beside what there is otherwise, and how soon a new container is found.
//!
//! `cargo run --release -p integration-tests --bin bench_names [-- --engine 28.5 --rounds 5 --seconds 5]`, as root, after
//! `cargo build --release -p drover -p drover-coordinator -p drover-ipam -p drover-net -p drover-name-service -p drover-vol` and
//! `integration-tests/make-root sid`. It needs `dnsperf` (Debian's package); `aardvark-dns`, of Podman, is measured too if it
//! is in the path (`cargo install aardvark-dns`).
//!
//! Each round asks every resolver in turn, from the network namespace of a container: as fast as 100 queries under way at a
//! time allow, and, for the time of one answer, 2,000 a second. Processor time is that of the process that answers;
//! what the kernel does to deliver an answer is in it. Ratios are to Docker's resolver of the same round. Aims: 10 times
//! Docker's, 100,000 answers a second of a processor, and what is passed on within a fifth of Docker's alone. "Echo" is what
//! no resolver can exceed here: a loop that returns each datagram as an answer without having read it.
//!
//! Then 100 containers are started, one after the other, while a container of the other host asks for each; the time is
//! from the engine's start event to the first answer. Aim: 250 ms (p99). At last, 10,000 names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use integration_tests::drover::LOG;
use integration_tests::host::Host;
use integration_tests::interrupt;
use integration_tests::lab::{IMAGE, Lab};
use integration_tests::measure::{Request, Samples, Table, progress, say};
use integration_tests::network::Namespace;
use integration_tests::process;
use integration_tests::wait;

#[path = "bench_names/echo.rs"]
mod echo;
#[path = "bench_names/many.rs"]
mod many;
#[path = "bench_names/soon.rs"]
mod soon;

/// The unit of `/proc/PID/stat`.
const TICKS_A_SECOND: f64 = 100.0;
/// How many queries a second, where the time of one answer is measured.
const CALM: u32 = 2000;

fn main() -> Result<()> {
    if echo::is_asked_for() {
        return echo::serve();
    }
    let request = Request::parse(5, 5)?;
    interrupt::handle()?;
    say(&request.machine()?);
    let folder = tempfile::tempdir()?;
    let mut lab = Lab::start(request.release, 2)?;
    progress("starting Drover");
    lab.form_cluster()?;
    let aardvark = Aardvark::start(folder.path())?;
    let mut paths = prepare(&lab, folder.path(), aardvark.as_ref())?;
    let beside = lab.pair()?.0.network_of("ann")?;
    let echo = echo::Echo::start(&beside)?;
    let mut bound = Asked::new(folder.path(), "echo", beside, "bob", vec![echo.process()])?;
    bound.port = echo::PORT;
    paths.push(bound);
    for round in 0..request.rounds {
        progress(&format!("round {} of {}", round + 1, request.rounds));
        for place in 0..paths.len() {
            let place = (place + round) % paths.len();
            if let Some(path) = paths.get_mut(place) {
                path.measure(request.seconds)
                    .with_context(|| format!("measuring {}", path.name))?;
            }
        }
    }
    report(&paths);
    drop(paths);
    soon::measure(&lab)?;
    drop(lab);
    many::measure(folder.path())
}

/// A resolver, asked from somewhere.
struct Asked {
    name: &'static str,
    /// The network namespace that is asked from, and what is asked there.
    namespace: PathBuf,
    server: &'static str,
    port: u16,
    questions: PathBuf,
    /// The process that answers, as the machine sees it.
    answers: Vec<PathBuf>,
    rate: Samples,
    each: Samples,
    p50: Samples,
    p99: Samples,
}

fn prepare(lab: &Lab, folder: &Path, aardvark: Option<&Aardvark>) -> Result<Vec<Asked>> {
    lab.two_sleepers("app")?;
    let (one, _) = lab.pair()?;
    one.run("docker network create plain")?;
    one.run("docker network connect plain ann")?;
    one.sleeper("cid", "--network plain")?;
    one.sleeper("dan", "--network plain")?;
    let bob = lab.pair()?.1.address_of("bob", "app")?;
    one.is_told("ann", "bob", &[&bob], 10)?;
    let of = |program: &str| -> Result<Vec<PathBuf>> {
        let pids = one.processes(program)?;
        ensure!(!pids.is_empty(), "no {program}: {}", one.tail(LOG, 5));
        let root = proc_of(one)?;
        Ok(pids.iter().map(|pid| root.join(pid.to_string())).collect())
    };
    let path = |name, container: &str, asked: &str, answers| {
        Asked::new(folder, name, one.network_of(container)?, asked, answers)
    };
    let mut passing = of("drover-names")?;
    passing.extend(of("dockerd")?);
    let mut paths = vec![
        path("Docker's resolver", "dan", "cid", of("dockerd")?)?,
        path("Drover", "ann", "bob", of("drover-names")?)?,
        path("Drover, passed on", "ann", "cid", passing)?,
    ];
    if let Some(aardvark) = aardvark {
        let answers = vec![PathBuf::from(format!("/proc/{}", aardvark.answers))];
        let namespace = aardvark.namespace();
        let mut other = Asked::new(folder, "aardvark-dns", namespace, "bob", answers)?;
        other.server = Aardvark::ADDRESS;
        paths.push(other);
    }
    Ok(paths)
}

/// A host's `/proc`, as the machine sees it.
fn proc_of(host: &Host) -> Result<PathBuf> {
    Ok(PathBuf::from(format!("/proc/{}/root/proc", host.init()?)))
}

impl Asked {
    fn new(
        folder: &Path,
        name: &'static str,
        namespace: PathBuf,
        asked: &str,
        answers: Vec<PathBuf>,
    ) -> Result<Self> {
        let questions = folder.join(format!("questions-{asked}"));
        fs::write(&questions, format!("{asked} A\n"))?;
        Ok(Self {
            name,
            namespace,
            server: "127.0.0.11",
            port: 53,
            questions,
            answers,
            rate: Samples::default(),
            each: Samples::default(),
            p50: Samples::default(),
            p99: Samples::default(),
        })
    }

    fn measure(&mut self, seconds: u32) -> Result<()> {
        let before = self.spent()?;
        let said = self.dnsperf(&format!("-l {seconds} -c 4 -q 100"))?;
        let spent = self.spent()? - before;
        let (sent, completed) = (
            number(&said, "Queries sent:")?,
            number(&said, "Queries completed:")?,
        );
        ensure!(completed >= sent * 0.99, "queries were lost: {said}");
        ensure!(said.contains("NOERROR"), "there is no such name: {said}");
        self.rate.push(number(&said, "Queries per second:")?);
        self.each.push(spent / completed * 1e6);
        let said = self.dnsperf(&format!("-l 2 -c 1 -Q {CALM} -v"))?;
        // > NOERROR bob A 0.000123
        let times = said.lines().filter_map(|line| {
            let words = line.strip_prefix("> NOERROR ")?;
            words.rsplit(' ').next()?.parse::<f64>().ok()
        });
        let times: Samples = times.collect();
        ensure!(times.count() > 100, "no times in: {said}");
        self.p50.push(times.quantile(50) * 1e6);
        self.p99.push(times.quantile(99) * 1e6);
        Ok(())
    }

    fn dnsperf(&self, flags: &str) -> Result<String> {
        let script = format!(
            "exec nsenter --net={} dnsperf -s {} -p {} -d {} {flags}",
            self.namespace.display(),
            self.server,
            self.port,
            self.questions.display()
        );
        process::machine(&["sh", "-ec", &script])
    }

    /// The processor time of whoever answers, seconds.
    fn spent(&self) -> Result<f64> {
        let mut sum = 0.0;
        for process in &self.answers {
            let stat = fs::read_to_string(process.join("stat"))?;
            let fields = stat.rsplit_once(") ").context("a stat line")?.1;
            let mut fields = fields.split(' ').skip(11);
            for _ in 0..2 {
                let ticks: f64 = fields.next().context("processor time")?.parse()?;
                sum += ticks / TICKS_A_SECOND;
            }
        }
        Ok(sum)
    }
}

fn number(said: &str, name: &str) -> Result<f64> {
    let line = said.lines().find_map(|line| line.trim().strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().next());
    let word = word.with_context(|| format!("no `{name}` in: {said}"))?;
    Ok(word.parse()?)
}

fn report(paths: &[Asked]) {
    let mut table = Table::new(&[
        "resolver",
        "answers/s",
        "to Docker's (least to greatest)",
        "CPU us each",
        "answers/s of a CPU",
        "p50 us",
        "p99 us",
    ]);
    for path in paths {
        let Some(docker) = paths.first() else { return };
        let ratio = path.rate.over(&docker.rate);
        let each = path.each.median();
        table.row(&[
            path.name.to_owned(),
            format!("{:.0}", path.rate.median()),
            format!(
                "{:.2} ({:.2} to {:.2})",
                ratio.median(),
                ratio.quantile(0),
                ratio.quantile(100)
            ),
            format!("{each:.1}"),
            format!("{:.0}", 1e6 / each),
            format!("{:.0}", path.p50.median()),
            format!("{:.0}", path.p99.median()),
        ]);
    }
    say(&table.text());
}

/// Podman's resolver, in a namespace of its own.
struct Aardvark {
    namespace: Namespace,
    process: Child,
    /// The process that answers: it may have left the one that was started.
    answers: u32,
}

impl Aardvark {
    const ADDRESS: &'static str = "10.89.0.1";

    /// Starts it; `None` when there is none.
    fn start(folder: &Path) -> Result<Option<Self>> {
        if Command::new("aardvark-dns")
            .arg("version")
            .output()
            .is_err()
        {
            progress("aardvark-dns is not in the path, and is left out");
            return Ok(None);
        }
        let config = folder.join("aardvark");
        fs::create_dir_all(&config)?;
        let names = format!(
            "{}\n{} 10.89.0.2  bob\n{} 10.89.0.3  ann\n",
            Self::ADDRESS,
            "b".repeat(64),
            "a".repeat(64)
        );
        fs::write(config.join("app"), names)?;
        let namespace = Namespace::create()?;
        namespace.run(&format!("ip addr add {}/24 dev lo", Self::ADDRESS))?;
        let script = format!("exec aardvark-dns --config {} -p 53 run", config.display());
        let process = namespace
            .command(&script)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let mut aardvark = Self {
            namespace,
            process,
            answers: 0,
        };
        let file = config.join("aardvark.pid");
        let (answers, _) = wait::until("aardvark-dns", wait::seconds(10), || {
            let told = fs::read_to_string(&file)
                .ok()
                .and_then(|pid| pid.trim().parse().ok());
            let Some(pid) = told else {
                bail!("it has not said which process it is");
            };
            aardvark.namespace.run("ss -ulnH sport = 53 | grep -q .")?;
            Ok(pid)
        })?;
        aardvark.answers = answers;
        Ok(Some(aardvark))
    }

    fn namespace(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.namespace.pid()))
    }
}

impl Drop for Aardvark {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
        if self.answers != 0 && self.answers != self.process.id() {
            drop(process::machine(&["kill", "-9", &self.answers.to_string()]));
        }
    }
}

/// A container of the lab that exists and does not run.
fn create(host: &Host, name: &str) -> Result<()> {
    host.run(&format!(
        "docker create --network app --name {name} {IMAGE} sleep 1000000"
    ))?;
    Ok(())
}
