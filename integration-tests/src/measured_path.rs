//! A path between two hosts of the lab, and what is measured on it: streams, round trips, and the processor time that
//! a stream takes.
//!
//! The programs run in the containers' network namespaces, not in their cells of system calls (seccomp), so that the
//! networks are compared and nothing else. All hosts share one machine: what is spent on a packet anywhere comes out
//! of the throughput.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::host::Host;
use crate::lab::{IMAGE, Lab};
use crate::measure::{Samples, say};
use crate::wait;

/// As an argument: answer bytes with bytes.
const ANSWER: &str = "--answer";
/// As an argument: send bytes to an address for so many seconds, one after the other's answer.
const ASK: &str = "--ask";
const PORT: u16 = 5300;
const STREAM_PORT: u16 = 5301;
/// A benchmark measures at several places with itself.
const PROGRAMS: &str = "/run/lab/bin";

/// Plays the part of an end, if that is what a benchmark was started for.
///
/// # Errors
/// Fails when the other end does.
pub fn play_end() -> Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [ANSWER] => answer().map(|()| true),
        [ASK, address, seconds] => ask(address, seconds.parse()?).map(|()| true),
        _ => Ok(false),
    }
}

/// Two ends, and what was measured between them.
#[derive(Debug)]
pub struct MeasuredPath {
    /// What it is called in the tables.
    pub name: &'static str,
    /// The largest packet, bytes.
    pub mtu: u32,
    /// Gigabits of payload in a second, on one connection.
    pub one: Samples,
    /// The same on several at once.
    pub many: Samples,
    /// Round trips of a byte in a second.
    pub trips: Samples,
    /// Microseconds of the middle one.
    pub middle: Samples,
    /// Microseconds of the hundredth-longest.
    pub late: Samples,
    /// Processor seconds of the whole machine for a gigabit of one connection.
    pub cost: Samples,
    /// How many processors worked while one connection streamed. With all of them at work, more connections carry no more.
    pub busy_one: Samples,
    /// The same while several did.
    pub busy_many: Samples,
    /// The benchmark's own file name.
    program: String,
    /// The place of the first host in the lab; the other end is on the next.
    from: usize,
    /// The container at the first end; the host itself when there is none.
    container: Option<&'static str>,
    address: String,
}

impl MeasuredPath {
    /// The path between two hosts themselves, to an address of the second.
    ///
    /// # Errors
    /// Fails when the other end does not start.
    pub fn between_hosts(lab: &mut Lab, name: &'static str, address: &str) -> Result<Self> {
        let host = lab.host(0)?;
        let route = host.run(&format!("ip -o route get {address}"))?;
        let device = route
            .split_whitespace()
            .skip_while(|word| *word != "dev")
            .nth(1);
        let device = device.with_context(|| format!("no device in {route}"))?;
        let mtu = host
            .run(&format!("cat /sys/class/net/{device}/mtu"))?
            .parse()?;
        let path = Self::new(name, 0, None, address.to_owned(), mtu)?;
        Ok(path)
    }

    /// The path between two containers that are made for it, on the host with a place and the next one.
    ///
    /// # Errors
    /// Fails when one does not start or they do not reach each other.
    pub fn between_containers(
        lab: &mut Lab,
        name: &'static str,
        first: usize,
        network: &str,
        containers: (&'static str, &'static str),
    ) -> Result<Self> {
        for (place, container) in [(first, containers.0), (first + 1, containers.1)] {
            let host = lab.host(place)?;
            // A Swarm's network comes to a worker with the first container there, and may need a second try.
            let command = format!(
                "docker run -d --name {container} --network {network} {IMAGE} sleep 1000000"
            );
            wait::until("a container", wait::seconds(30), || {
                host.run(&format!("docker rm -f {container} 2>/dev/null; {command}"))
            })?;
        }
        let address = lab.host(first + 1)?.address_of(containers.1, network)?;
        let host = lab.host(first)?;
        host.reaches(containers.0, &address, 10)?;
        let mtu = host.sends_full_size(containers.0, &address)?;
        let path = Self::new(name, first, Some(containers.0), address, mtu)?;
        let server = lab.host(first + 1)?;
        let pid = server.pid_of(containers.1)?;
        path.begin_servers(server, &format!("nsenter --target {pid} --net -- "))?;
        Ok(path)
    }

    fn new(
        name: &'static str,
        from: usize,
        container: Option<&'static str>,
        address: String,
        mtu: u32,
    ) -> Result<Self> {
        let own = std::env::current_exe().context("this program's own path")?;
        let program = own.file_name().context("this program has no name")?;
        Ok(Self {
            name,
            mtu,
            one: Samples::default(),
            many: Samples::default(),
            trips: Samples::default(),
            middle: Samples::default(),
            late: Samples::default(),
            cost: Samples::default(),
            busy_one: Samples::default(),
            busy_many: Samples::default(),
            program: program.to_string_lossy().into_owned(),
            from,
            container,
            address,
        })
    }

    /// Starts what the second end of paths between hosts answers with: once for all of them.
    ///
    /// # Errors
    /// Fails when it does not start.
    pub fn serve_hosts(&self, lab: &mut Lab) -> Result<()> {
        self.begin_servers(lab.host(self.from + 1)?, "")
    }

    fn begin_servers(&self, host: &mut Host, prefix: &str) -> Result<()> {
        let program = &self.program;
        host.start(
            &format!("exec {prefix}{PROGRAMS}/{program} {ANSWER}"),
            "answer.log",
        )?;
        host.start(
            &format!("exec {prefix}iperf3 --server --port {STREAM_PORT}"),
            "iperf3.log",
        )
    }

    /// Measures everything once.
    ///
    /// # Errors
    /// Fails when an end does not answer.
    pub fn measure(&mut self, lab: &Lab, seconds: u32, connections: u32) -> Result<()> {
        // The second that is left out of a stream's figure was paid for.
        let paid = f64::from(seconds + 1);
        let before = busy()?;
        let one = self.stream(lab, seconds, 1)?;
        let between = busy()?;
        self.cost.push((between - before) / (one * paid));
        self.busy_one.push((between - before) / paid);
        self.one.push(one);
        let before = busy()?;
        let many = self.stream(lab, seconds, connections)?;
        self.busy_many.push((busy()? - before) / paid);
        self.many.push(many);
        let program = &self.program;
        let command = format!(
            "{PROGRAMS}/{program} {ASK} {}:{PORT} {seconds}",
            self.address
        );
        let said = self.run(lab, &command)?;
        let numbers: Vec<f64> = said
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("the asker said: {said}"))?;
        let [trips, middle, late] = numbers.as_slice() else {
            bail!("the asker said: {said}")
        };
        self.trips.push(*trips);
        self.middle.push(*middle);
        self.late.push(*late);
        Ok(())
    }

    /// Gigabits of payload in a second, as the receiver counts.
    fn stream(&self, lab: &Lab, seconds: u32, connections: u32) -> Result<f64> {
        let command = format!(
            "iperf3 --client {} --port {STREAM_PORT} --time {seconds} --omit 1 --parallel {connections} --json",
            self.address
        );
        // The server of the stream before may not have said its last word yet.
        let (said, _) = wait::until("a stream", wait::seconds(20), || self.run(lab, &command))?;
        let result: serde_json::Value = serde_json::from_str(&said)?;
        let bits = result.pointer("/end/sum_received/bits_per_second");
        let bits = bits.and_then(serde_json::Value::as_f64);
        Ok(bits.with_context(|| format!("iperf3 said: {said}"))? / 1e9)
    }

    /// Runs a command at the end that sends.
    fn run(&self, lab: &Lab, command: &str) -> Result<String> {
        let host = lab.hosts.get(self.from).context("no such host")?;
        ensure!(lab.hosts.len() > self.from + 1, "no such host");
        match self.container {
            Some(container) => host.beside(container, command)?.succeeded(),
            None => host.run(command),
        }
    }
}

/// Measures paths in turn, each round beginning with another one.
///
/// # Errors
/// Fails when one cannot be measured.
pub fn measure_all(
    paths: &mut [MeasuredPath],
    lab: &Lab,
    rounds: usize,
    (seconds, connections): (u32, u32),
) -> Result<()> {
    for round in 0..rounds {
        crate::measure::progress(&format!("round {} of {rounds}", round + 1));
        for place in 0..paths.len() {
            let place = (place + round) % paths.len();
            if let Some(path) = paths.get_mut(place) {
                path.measure(lab, seconds, connections)
                    .with_context(|| format!("measuring {}", path.name))?;
            }
        }
    }
    Ok(())
}

/// How long the processors of the machine have worked since it was started, in seconds, all together.
fn busy() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    let [user, nice, system, _idle, _wait, interrupts, softly, ..] = ticks.as_slice() else {
        bail!("the kernel counts no processor time: {line}");
    };
    let hundredths = u32::try_from(user + nice + system + interrupts + softly)?;
    Ok(f64::from(hundredths) / 100.0)
}

/// Answers every byte with itself, on every connection.
fn answer() -> Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", PORT))?;
    for connection in listener.incoming() {
        let mut connection = connection?;
        connection.set_nodelay(true)?;
        std::thread::spawn(move || {
            let mut byte = [0];
            while connection.read_exact(&mut byte).is_ok() && connection.write_all(&byte).is_ok() {}
        });
    }
    Ok(())
}

/// Prints round trips in a second, and the median and 99th percentile in microseconds.
fn ask(address: &str, seconds: u64) -> Result<()> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_nodelay(true)?;
    let mut byte = [7];
    let mut times = Samples::default();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        let sent = Instant::now();
        connection.write_all(&byte)?;
        connection.read_exact(&mut byte)?;
        times.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    let elapsed = begun.elapsed().as_secs_f64();
    let count = u32::try_from(times.count())?;
    say(&format!(
        "{} {} {}",
        f64::from(count) / elapsed,
        times.median(),
        times.quantile(99)
    ));
    Ok(())
}
