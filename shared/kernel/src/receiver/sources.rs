//! Where packets with our SPIs came from, as the program has noted. Nothing of it is proven: anybody can send a packet
//! with any SPI from any address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;

use drover_ipsec::Spi;

use super::bpf::Map;
use crate::error::Error;
use crate::kernel::Kernel;

/// How many SPIs are remembered: of those there can be more, what was not used for longest goes.
pub(super) const ENTRIES: u32 = 1 << 14;

/// Where the last packet with an SPI came from, in UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Its sender's address.
    pub remote: IpAddr,
    /// Its sender's port.
    pub port: u16,
    /// The address of this host that it was sent to.
    pub local: IpAddr,
}

/// The maps of this process's receivers, by device.
#[derive(Debug, Default)]
pub(crate) struct Sources(Mutex<BTreeMap<String, Map>>);

impl Sources {
    pub(super) fn has(&self, device: &str) -> bool {
        self.0.lock().is_ok_and(|maps| maps.contains_key(device))
    }

    pub(super) fn keep(&self, device: &str, map: Map) {
        if let Ok(mut maps) = self.0.lock() {
            maps.insert(device.to_owned(), map);
        }
    }

    pub(super) fn forget(&self, device: &str) {
        if let Ok(mut maps) = self.0.lock() {
            maps.remove(device);
        }
    }
}

impl Kernel {
    /// Where packets came from since the receivers of this process were set, by SPI and device.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn sources(&self) -> Result<BTreeMap<(Spi, String), Source>, Error> {
        let failed = |source| Error::Request {
            action: "read where packets came from".to_owned(),
            source,
        };
        let mut sources = BTreeMap::new();
        let Ok(maps) = self.sources.0.lock() else {
            return Ok(sources);
        };
        for (device, map) in maps.iter() {
            let mut key = None;
            // The program goes on noting: the end may never come.
            for _entry in 0..ENTRIES {
                key = map.next(key).map_err(failed)?;
                let Some(key) = key else { break };
                let value = map.value(key).map_err(failed)?;
                let source = value.as_deref().and_then(read);
                if let (Some(spi), Some(source)) = (Spi::read(u32::from_be_bytes(key)), source) {
                    sources.insert((spi, device.clone()), source);
                }
            }
        }
        Ok(sources)
    }
}

/// Two addresses and a port.
fn read(value: &[u8]) -> Option<Source> {
    let address = |bytes: &[u8]| {
        let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
            .ok()
    };
    let (addresses, rest) = value.split_at_checked(value.len().checked_sub(4)?)?;
    let (remote, local) = addresses.split_at_checked(addresses.len() / 2)?;
    let (port, _) = rest.split_first_chunk()?;
    Some(Source {
        remote: address(remote)?,
        port: u16::from_be_bytes(*port),
        local: address(local)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_and_what_cannot_be_is_not() {
        let four = [192, 0, 2, 2, 192, 0, 2, 1, 0x12, 0x84, 0, 0];
        let source = read(&four).unwrap();
        assert_eq!(source.remote.to_string(), "192.0.2.2");
        assert_eq!(
            (source.port, source.local.to_string().as_str()),
            (4740, "192.0.2.1")
        );
        assert!(read(&[1; 36]).is_some());
        for length in [0, 3, 4, 11, 13, 35] {
            assert_eq!(read(&vec![1; length]), None, "{length}");
        }
    }
}
