//! A socket per role: the engine's API behind a socket whose clients have an identity, with lists that show what they may see.
//!
//! ```text
//! policy folder/sockets/*.toml --> RoleSockets: bound, with owner and mode; gone when the file is
//! client --> connection --> door: judge (the plugin's own) --no--> 403
//!                            |yes
//!                            v
//!                          engine, asked with the token of this host --> lists and events filtered, all else as it comes
//! ```
//! A call is decided once, here: it bears the token when it reaches the engine, and the plugin lets it through. What is behind
//! an upgrade (attach, exec, BuildKit) is passed unread in both directions.

mod answer;
pub(crate) mod configuration;
mod door;
mod events;
mod list;
mod tunnel;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::judge::Judge;
use configuration::SocketSettings;
use door::Door;

/// How often is looked whether a file has changed, and whether each socket is still there.
const LOOK: Duration = Duration::from_secs(1);
/// How many connections a socket serves at a time; more wait.
const CONNECTIONS: usize = 512;
/// How long to wait before accepting again when the kernel refused.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// What sockets are served with.
#[derive(Debug)]
pub(crate) struct RoleSockets {
    policy_dir: PathBuf,
    judge: Arc<Judge>,
    /// The engine's socket; `None` when it is not on this host.
    engine: Option<PathBuf>,
    token: String,
    faults: Mutex<Vec<String>>,
}

/// A socket that is served.
struct Served {
    file: PathBuf,
    settings: SocketSettings,
    inode: u64,
    stop: watch::Sender<bool>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if inode(&self.settings.path) == Some(self.inode)
            && let Err(error) = fs::remove_file(&self.settings.path)
        {
            warn!(socket = %self.settings.path.display(), %error, "a socket that is not served any more is still there");
        }
    }
}

impl RoleSockets {
    pub(crate) fn new(
        policy_dir: PathBuf,
        judge: Arc<Judge>,
        docker_host: &str,
        token: String,
    ) -> Self {
        Self {
            policy_dir,
            judge,
            engine: docker_host.strip_prefix("unix://").map(PathBuf::from),
            token,
            faults: Mutex::default(),
        }
    }

    /// What keeps a socket from being served.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Serves what the files say, until `shutdown` is true.
    pub(crate) async fn follow(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let mut served = BTreeMap::new();
        loop {
            self.reconcile(&mut served);
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
        }
    }

    fn reconcile(&self, served: &mut BTreeMap<PathBuf, Served>) {
        let (wanted, mut faults) = match configuration::read(&self.policy_dir) {
            Ok(files) => wanted(files, served),
            // Nobody has said that any socket is to go.
            Err(fault) => return self.tell(vec![fault]),
        };
        // A socket that was removed or replaced by somebody is bound again.
        served.retain(|path, socket| {
            let settings = wanted.get(path).map(|(_, settings)| settings);
            settings == Some(&socket.settings) && inode(path) == Some(socket.inode)
        });
        for (path, (file, settings)) in wanted {
            if served.contains_key(&path) {
                continue;
            }
            match self.serve(file, &settings) {
                Ok(socket) => {
                    info!(socket = %path.display(), role = settings.role, user = settings.user_name(), "a role's socket is served");
                    served.insert(path, socket);
                }
                Err(fault) => faults.push(format!("the socket `{}`: {fault}", path.display())),
            }
        }
        self.tell(faults);
    }

    fn tell(&self, faults: Vec<String>) {
        let mut known = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        for fault in faults.iter().filter(|fault| !known.contains(fault)) {
            warn!(%fault, "a role's socket is not served as it is written down");
        }
        *known = faults;
    }

    fn serve(&self, file: PathBuf, settings: &SocketSettings) -> Result<Served, String> {
        let engine = self.engine.clone().ok_or(
            "the engine is not asked at a unix socket of this host: set docker_host to unix:///var/run/docker.sock",
        )?;
        let (listener, inode) = bind(settings)?;
        let door = Arc::new(Door::new(
            self.judge.clone(),
            engine,
            self.token.clone(),
            settings,
        ));
        let (stop, stopped) = watch::channel(false);
        drop(drover_daemon::task::spawn(
            "a role's socket",
            accept(listener, door, stopped),
        ));
        Ok(Served {
            file,
            settings: settings.clone(),
            inode,
            stop,
        })
    }
}

/// By the path of the socket: its file, and what that says.
type Wanted = BTreeMap<PathBuf, (PathBuf, SocketSettings)>;

/// What is to be served, by path, and what is wrong. A file that has become unreadable changes nothing.
fn wanted(
    files: Vec<configuration::File>,
    served: &BTreeMap<PathBuf, Served>,
) -> (Wanted, Vec<String>) {
    let (mut wanted, mut faults) = (Wanted::new(), Vec::new());
    for (file, settings) in files {
        let settings = settings.or_else(|fault| {
            faults.push(fault);
            let before = served.values().find(|socket| socket.file == file);
            before.map(|socket| socket.settings.clone()).ok_or(())
        });
        let Ok(settings) = settings else {
            continue;
        };
        match wanted.entry(settings.path.clone()) {
            Entry::Vacant(free) => drop(free.insert((file, settings))),
            Entry::Occupied(taken) => faults.push(format!(
                "`{}`: the socket `{}` is in another file, too",
                file.display(),
                taken.key().display()
            )),
        }
    }
    (wanted, faults)
}

fn inode(path: &Path) -> Option<u64> {
    let found = fs::symlink_metadata(path).ok()?;
    found.file_type().is_socket().then(|| found.ino())
}

/// Binds a socket, at first for root alone.
fn bind(settings: &SocketSettings) -> Result<(UnixListener, u64), String> {
    let path = &settings.path;
    if StdStream::connect(path).is_ok() {
        return Err("another process serves it".to_owned());
    }
    let listener = drover_daemon::bind(path).map_err(|error| {
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| {
            error.source()
        });
        causes
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": ")
    })?;
    let (owner, group, mode) = (settings.owner_id()?, settings.group_id()?, settings.mode()?);
    let failed = |error: std::io::Error| error.to_string();
    chown(path, owner, group).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = UnixListener::from_std(listener).map_err(failed)?;
    let inode = inode(path).ok_or("it was removed while it was made")?;
    Ok((listener, inode))
}

/// Serves a socket until it is to go, and with it every connection that came by it.
async fn accept(listener: UnixListener, door: Arc<Door>, stopped: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut stop = stopped.clone();
    loop {
        let next = async {
            let slot = slots.clone().acquire_owned().await.ok()?;
            Some((listener.accept().await, slot))
        };
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            Some(_) = connections.join_next() => continue,
            accepted = next => accepted,
        };
        match accepted {
            Some((Ok((stream, _)), slot)) => {
                let (door, stopped) = (door.clone(), stopped.clone());
                connections.spawn(async move {
                    let service = service_fn(|request| door.clone().pass(request, stopped.clone()));
                    let served = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades();
                    if let Err(error) = served.await {
                        debug!(%error, "a connection to a role's socket ended early");
                    }
                    drop(slot);
                });
            }
            Some((Err(error), _)) => {
                warn!(%error, "a connection to a role's socket was not accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
            None => return,
        }
    }
}
