//! Numbered packets and streams between two containers: this process sends and counts them itself, from within their
//! network namespaces, so that what is lost was lost on the way.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::host::Host;
use crate::sniff::TEXT;
use crate::wait;

/// How many flows there are, with a port each, so that every lane has some.
const FLOWS: usize = 8;
const PORT: u16 = 5400;
/// Bytes of a packet's payload: its number, and what the sniffer looks for.
const SIZE: usize = 208;
const NUMBER: usize = 8;
/// What a stream sends at once, and how often: 160 kbit/s, which an emulated machine manages beside the packets.
const PIECE: usize = 2000;
const PAUSE: Duration = Duration::from_millis(100);
/// How long the last answers and the end of a stream are waited for.
const DRAIN: Duration = Duration::from_secs(3);

/// How often a packet is sent: a thousand times a second, or as often as an emulated machine manages beside all else.
fn period() -> Duration {
    match wait::patience() {
        1 => Duration::from_millis(1),
        patience => Duration::from_millis(2) * patience,
    }
}

/// What is on its way between two containers.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    client: JoinHandle<Result<Carried>>,
    end: watch::Sender<bool>,
    server: JoinHandle<Result<()>>,
}

/// What became of a load.
#[derive(Debug, Clone, Copy)]
pub struct Carried {
    /// Packets that were sent; each is answered.
    pub packets: u64,
    /// Those that no answer came to.
    pub lost: u64,
    /// Those that came after a later one of their flow, on either way.
    pub overtaken: u64,
    /// Bytes of a stream that arrived as they were sent.
    pub streamed: u64,
    /// Packets sent in a second, as a part of what was to be sent.
    pub rate: f64,
}

impl Carried {
    /// All packets were answered, none came out of turn, and enough of them were sent to say so.
    ///
    /// # Errors
    /// Fails with the counts.
    pub fn is_whole(self) -> Result<()> {
        ensure!(
            self.lost == 0 && self.overtaken == 0,
            "not all packets came, in their order: {self:?}"
        );
        let least = if wait::patience() == 1 { 0.5 } else { 0.1 };
        ensure!(self.rate >= least, "too few packets: {self:?}");
        Ok(())
    }
}

impl Load {
    /// Begins: a thousand packets a second, or as many as an emulated machine manages, and a stream.
    ///
    /// # Errors
    /// Fails when one of the containers does not run, or a thread cannot enter its network.
    pub fn start(from: (&Host, &str), to: (&Host, &str), address: &str) -> Result<Self> {
        Self::begin(from, to, address, true)
    }

    /// Begins the packets alone, which do not mind when nobody answers.
    ///
    /// # Errors
    /// Fails when one of the containers does not run, or a thread cannot enter its network.
    pub fn start_packets(from: (&Host, &str), to: (&Host, &str), address: &str) -> Result<Self> {
        Self::begin(from, to, address, false)
    }

    fn begin(
        from: (&Host, &str),
        to: (&Host, &str),
        address: &str,
        with_stream: bool,
    ) -> Result<Self> {
        let address: Ipv4Addr = address.parse()?;
        let address = SocketAddr::new(IpAddr::V4(address), PORT);
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = watch::channel(false);
        let overtaken = Arc::<AtomicU64>::default();
        let (told, listening) = std::sync::mpsc::channel();
        let counted = overtaken.clone();
        let server = inside(to, move || async move {
            let packets = UdpSocket::bind(address).await?;
            hold_many(&packets)?;
            let streams = TcpListener::bind(address).await?;
            // Who began this has gone, if nobody hears it.
            let _told = told.send(());
            serve(packets, streams, &counted, ended).await
        })?;
        listening
            .recv_timeout(wait::seconds(10) * wait::patience())
            .context("nobody listens for packets")?;
        let client = inside(from, move || ask(address, with_stream, overtaken, stopped))?;
        Ok(Self {
            stop,
            client,
            end,
            server,
        })
    }

    /// Ends, and waits for what is on its way.
    ///
    /// # Errors
    /// Fails when a stream did not arrive as it was sent.
    pub fn end(self) -> Result<Carried> {
        // Whoever listens may have failed already, and is asked for that next.
        let _stopped = self.stop.send(true);
        let carried = self.client.join();
        let _ended = self.end.send(true);
        let served = self.server.join();
        let gone = |_panic| anyhow!("a thread of the load ended");
        let carried = carried.map_err(gone)?;
        served.map_err(gone)?.context("answering packets")?;
        carried
    }
}

/// Runs something in the network of a container, on a thread of its own.
fn inside<T, F, W>((host, container): (&Host, &str), work: W) -> Result<JoinHandle<Result<T>>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
    W: FnOnce() -> F + Send + 'static,
{
    // The host's own name for the process; its `/proc` is seen from here as well.
    let path = format!(
        "/proc/{}/root/proc/{}/ns/net",
        host.init()?,
        host.pid_of(container)?
    );
    let file = File::open(&path).with_context(|| path.clone())?;
    Ok(std::thread::spawn(move || {
        setns(&file, CloneFlags::CLONE_NEWNET)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(work())
    }))
}

/// What nobody has read yet is kept: this process may have to wait for its turn.
fn hold_many(socket: &UdpSocket) -> Result<()> {
    Ok(setsockopt(socket, sockopt::RcvBufForce, &(16 << 20))?)
}

/// Answers each packet with itself, and takes streams, until it is told to end.
async fn serve(
    packets: UdpSocket,
    streams: TcpListener,
    overtaken: &AtomicU64,
    mut ended: watch::Receiver<bool>,
) -> Result<()> {
    let echo = async {
        let (mut last, mut packet) = (BTreeMap::new(), [0; SIZE]);
        loop {
            let (length, from) = packets.recv_from(&mut packet).await?;
            let number = number(&packet)?;
            let last = last.entry(from.port()).or_insert(number);
            overtaken.fetch_add(u64::from(number < *last), Ordering::Relaxed);
            *last = number.max(*last);
            let sent = packets.send_to(packet.get(..length).unwrap_or_default(), from);
            // What cannot be sent is missed there.
            drop(sent.await);
        }
    };
    let take = async {
        loop {
            let (stream, _) = streams.accept().await?;
            tokio::spawn(swallow(stream));
        }
    };
    tokio::select! {
        failed = echo => failed,
        failed = take => failed,
        _ = ended.wait_for(|ended| *ended) => Ok(()),
    }
}

/// What a stream repeats, at least `length` bytes of it from any place of the text on.
fn repeated(length: usize) -> Vec<u8> {
    TEXT.as_bytes().repeat(length / TEXT.len() + 2)
}

/// Reads a stream to its end, and tells how much of it came as it was sent.
async fn swallow(mut stream: TcpStream) -> Result<()> {
    let (mut arrived, mut buffer) = (0_usize, vec![0; 1 << 16]);
    let text = repeated(buffer.len());
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            break;
        }
        let expected = text.get(arrived % TEXT.len()..).unwrap_or_default();
        let came = buffer.get(..length).unwrap_or_default();
        ensure!(
            expected.starts_with(came),
            "a stream came changed after {arrived} bytes"
        );
        arrived += length;
    }
    let arrived = u64::try_from(arrived)?;
    stream.write_all(&arrived.to_be_bytes()).await?;
    Ok(())
}

/// What has come back of a flow.
#[derive(Debug, Default)]
struct Flow {
    /// Whether the answer to each packet has.
    answered: Vec<bool>,
    last: u64,
}

async fn ask(
    address: SocketAddr,
    with_stream: bool,
    overtaken: Arc<AtomicU64>,
    stopped: watch::Receiver<bool>,
) -> Result<Carried> {
    let stream = with_stream.then(|| tokio::spawn(stream(address, stopped.clone())));
    let mut sockets = Vec::new();
    for _flow in 0..FLOWS {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.connect(address).await?;
        hold_many(&socket)?;
        let (socket, flow) = (Arc::new(socket), Arc::<Mutex<Flow>>::default());
        tokio::spawn(hear(socket.clone(), flow.clone(), overtaken.clone()));
        sockets.push((socket, flow));
    }
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(period());
    // Who is late sends less, and not all at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut packets = 0_u64;
    let mut packet: Vec<u8> = TEXT.bytes().cycle().take(SIZE).collect();
    while !*stopped.borrow() {
        ticks.tick().await;
        let flow = usize::try_from(packets)? % FLOWS;
        let turn = packets / u64::try_from(FLOWS)?;
        let (socket, _) = sockets.get(flow).context("a flow")?;
        if let Some(place) = packet.get_mut(..NUMBER) {
            place.copy_from_slice(&turn.to_be_bytes());
        }
        // What cannot be sent is as good as lost.
        drop(socket.send(&packet).await);
        packets += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let end = Instant::now() + DRAIN * wait::patience();
    let lost = loop {
        let answered: u64 = sockets.iter().map(|(_, flow)| answers(flow)).sum();
        let lost = packets.saturating_sub(answered);
        if lost == 0 || Instant::now() >= end {
            break lost;
        }
        tokio::time::sleep(PAUSE).await;
    };
    let streamed = match stream {
        Some(stream) => stream.await??,
        None => 0,
    };
    Ok(Carried {
        packets,
        lost,
        overtaken: overtaken.load(Ordering::Relaxed),
        streamed,
        rate: f64::from(u32::try_from(packets)?) * period().as_secs_f64() / seconds,
    })
}

fn answers(flow: &Mutex<Flow>) -> u64 {
    let flow = flow.lock().unwrap_or_else(PoisonError::into_inner);
    let answered = flow.answered.iter().filter(|answered| **answered);
    u64::try_from(answered.count()).unwrap_or_default()
}

/// Takes note of what comes back.
async fn hear(
    socket: Arc<UdpSocket>,
    flow: Arc<Mutex<Flow>>,
    overtaken: Arc<AtomicU64>,
) -> Result<()> {
    let mut packet = [0; SIZE];
    loop {
        // The other end may be away for a while.
        if socket.recv(&mut packet).await.is_err() {
            continue;
        }
        let number = number(&packet)?;
        let mut flow = flow.lock().unwrap_or_else(PoisonError::into_inner);
        overtaken.fetch_add(u64::from(number < flow.last), Ordering::Relaxed);
        flow.last = flow.last.max(number);
        let place = usize::try_from(number)?;
        if flow.answered.len() <= place {
            flow.answered.resize(place + 1, false);
        }
        if let Some(answered) = flow.answered.get_mut(place) {
            *answered = true;
        }
    }
}

/// Sends a stream until it is told to end, and hears how much of it arrived.
async fn stream(address: SocketAddr, mut stopped: watch::Receiver<bool>) -> Result<u64> {
    let text = repeated(PIECE);
    let mut stream = TcpStream::connect(address).await?;
    let mut sent = 0_usize;
    while !*stopped.borrow() {
        let begin = sent % TEXT.len();
        let piece = text.get(begin..begin + PIECE).unwrap_or_default();
        stream.write_all(piece).await?;
        sent += PIECE;
        // A closed channel is an end as well.
        let _waited = tokio::time::timeout(PAUSE, stopped.wait_for(|stopped| *stopped)).await;
    }
    stream.shutdown().await?;
    let mut arrived = [0; 8];
    let answer = stream.read_exact(&mut arrived);
    let answer = tokio::time::timeout(DRAIN * wait::patience(), answer).await;
    answer.context("a stream does not come to its end")??;
    let arrived = u64::from_be_bytes(arrived);
    ensure!(
        arrived == u64::try_from(sent)?,
        "{arrived} of {sent} bytes of a stream arrived"
    );
    Ok(arrived)
}

fn number(packet: &[u8]) -> Result<u64> {
    let number = packet.first_chunk::<NUMBER>();
    Ok(u64::from_be_bytes(
        *number.context("a packet without a number")?,
    ))
}
