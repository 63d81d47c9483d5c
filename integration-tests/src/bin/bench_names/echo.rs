//! The bound of every resolver: a process that returns each datagram as an answer, without having read it.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// Where it is asked, on the address of Docker's resolver.
pub(crate) const PORT: u16 = 5300;
/// With this the benchmark is the echo.
const ROLE: &str = "--echo";
/// In the third octet of a message: it is an answer (RFC 1035, 4.1.1).
const ANSWER: u8 = 0x80;

pub(crate) fn is_asked_for() -> bool {
    std::env::args().nth(1).is_some_and(|it| it == ROLE)
}

/// Echoes until it is killed.
pub(crate) fn serve() -> Result<()> {
    let socket = UdpSocket::bind(("127.0.0.11", PORT))?;
    let mut buffer = [0; 4096];
    loop {
        let (length, client) = socket.recv_from(&mut buffer)?;
        if let Some(flags) = buffer.get_mut(2) {
            *flags |= ANSWER;
        }
        let answer = buffer.get(..length).unwrap_or_default();
        // Whoever does not get it asks again.
        drop(socket.send_to(answer, client));
    }
}

/// The process, in a network namespace. It ends when this is dropped.
pub(crate) struct Echo(Child);

impl Echo {
    pub(crate) fn start(namespace: &Path) -> Result<Self> {
        let child = Command::new("nsenter")
            .arg(format!("--net={}", namespace.display()))
            .arg(std::env::current_exe()?)
            .arg(ROLE)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("starting the echo")?;
        Ok(Self(child))
    }

    /// Where the kernel tells of it.
    pub(crate) fn process(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.0.id()))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
