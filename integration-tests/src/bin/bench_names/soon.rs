//! How soon a container that is started is found from the other host.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use integration_tests::lab::Lab;
use integration_tests::measure::{Samples, progress, say};
use nix::sched::{CloneFlags, setns};

use crate::{create, proc_of};

/// How many containers are started.
const STARTS: usize = 100;
/// How often each is asked for.
const PERIOD: Duration = Duration::from_millis(2);
/// How long it may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Starts them and prints how soon each was found.
pub(crate) fn measure(lab: &Lab) -> Result<()> {
    let (one, two) = lab.pair()?;
    progress("creating 100 containers");
    for number in 0..STARTS {
        create(one, &format!("soon-{number}"))?;
    }
    let namespace = proc_of(two)?.join(format!("{}/ns/net", two.pid_of("bob")?));
    let (names, asked) = channel();
    let (found, answers) = channel();
    std::thread::spawn(move || {
        let namespace = File::open(namespace)?;
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        ask(&asked, &found)
    });
    let begun = since_epoch()?;
    let mut told = BTreeMap::new();
    for number in 0..STARTS {
        progress(&format!("start {} of {STARTS}", number + 1));
        let name = format!("soon-{number}");
        names.send(name.clone()).context("nobody asks")?;
        one.run(&format!("docker start {name}"))?;
        let at = answers
            .recv_timeout(LIMIT)
            .with_context(|| format!("{name} is not found"))?;
        told.insert(name, at);
    }
    let events = one.run(&format!(
        "docker events --since {} --until {} --filter type=container --filter event=start --format '{{{{.TimeNano}}}} {{{{.Actor.Attributes.name}}}}'",
        begun.as_secs(),
        since_epoch()?.as_secs() + 1
    ))?;
    let mut took = Samples::default();
    for line in events.lines() {
        let (at, name) = line.split_once(' ').context("an event")?;
        if let Some(found) = told.get(name) {
            let at = Duration::from_nanos(at.parse()?);
            took.push(found.saturating_sub(at).as_secs_f64() * 1e3);
        }
    }
    ensure!(
        took.count() == STARTS,
        "{} events of {STARTS}",
        took.count()
    );
    say(&format!(
        "from the start event until a container is found on the other host, {STARTS} starts: p50 {:.0} ms, p99 {:.0} ms, most {:.0} ms",
        took.median(),
        took.quantile(99),
        took.quantile(100)
    ));
    Ok(())
}

fn since_epoch() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

/// Asks for each name until it is told an address, and says when that was. Each has a socket of its own: a late answer of
/// the one before would count for it.
fn ask(names: &Receiver<String>, found: &Sender<Duration>) -> Result<()> {
    while let Ok(name) = names.recv() {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect("127.0.0.11:53")?;
        socket.set_read_timeout(Some(PERIOD))?;
        let question = question(&name)?;
        socket.send(&question)?;
        while !is_told(&socket)? {
            std::thread::sleep(PERIOD);
            socket.send(&question)?;
        }
        found.send(since_epoch()?)?;
    }
    Ok(())
}

/// Whether an address comes before it is time to ask again.
fn is_told(socket: &UdpSocket) -> Result<bool> {
    let mut buffer = [0; 512];
    match socket.recv(&mut buffer) {
        Ok(length) => {
            let answer = buffer.get(..length).unwrap_or_default();
            let [_, _, _, code, _, _, high, low, ..] = answer else {
                return Ok(false);
            };
            Ok(code & 0x0f == 0 && (*high, *low) != (0, 0))
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

fn question(name: &str) -> Result<Vec<u8>> {
    let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.push(u8::try_from(name.len())?);
    query.extend(name.as_bytes());
    query.extend([0, 0, 1, 0, 1]);
    Ok(query)
}
