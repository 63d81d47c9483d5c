//! Mounts that take longer than the engine waits.
#![cfg(test)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_http::{Body, Method, PeerIdentity, Request, Service};
use drover_plugin_host::{DriverError, NoMethods, VolumeDriver, VolumeService};
use drover_plugin_protocol::Empty;
use drover_plugin_protocol::volume::{Create, GetAnswer, ListAnswer, Mount, MountAnswer, Named};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

/// A driver whose mounts end when they may, and that tells of those which are undone.
struct Driver {
    go: Semaphore,
    undone: mpsc::UnboundedSender<Mount>,
}

fn other<T>() -> Result<T, DriverError> {
    Err(DriverError::new("nobody asks for that"))
}

impl VolumeDriver for Driver {
    async fn create(&self, _request: Create) -> Result<Empty, DriverError> {
        other()
    }

    async fn get(&self, _request: Named) -> Result<GetAnswer, DriverError> {
        other()
    }

    async fn list(&self) -> Result<ListAnswer, DriverError> {
        other()
    }

    async fn mount(&self, request: Mount) -> Result<MountAnswer, DriverError> {
        self.go.acquire().await.unwrap().forget();
        if request.name == "broken" {
            return Err(DriverError::new("it is broken"));
        }
        Ok(MountAnswer {
            mount_point: "/place".to_owned(),
        })
    }

    async fn unmount(&self, _request: Mount) -> Result<Empty, DriverError> {
        other()
    }

    async fn path(&self, _request: Named) -> Result<MountAnswer, DriverError> {
        other()
    }

    async fn remove(&self, _request: Named) -> Result<Empty, DriverError> {
        other()
    }

    async fn overdue(&self, request: Mount) {
        self.undone.send(request).unwrap();
    }
}

async fn mount(service: &impl Service, name: &str) -> String {
    let request = Request {
        method: Method::POST,
        path: "/VolumeDriver.Mount".to_owned(),
        query: None,
        peer: PeerIdentity::default(),
        body: Bytes::from(format!(r#"{{"Name":"{name}","ID":"7"}}"#)),
    };
    match service.call(request).await.body {
        Body::Full(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        Body::Stream(_) => panic!("a stream"),
    }
}

#[tokio::test]
async fn a_mount_that_ends_too_late_is_undone() {
    let (undone, mut heard) = mpsc::unbounded_channel();
    let driver = Arc::new(Driver {
        go: Semaphore::new(0),
        undone,
    });
    let service = VolumeService::new(driver.clone(), NoMethods);
    let service = service.with_limit(Duration::from_millis(50));
    let answer = mount(&service, "late").await;
    assert!(answer.contains("not done within 50ms"), "{answer}");
    assert!(heard.try_recv().is_err());
    driver.go.add_permits(1);
    let late = timeout(Duration::from_secs(5), heard.recv()).await.unwrap();
    assert_eq!(late.unwrap().name, "late");
    // Neither one that fails late nor one in time has anything to be undone.
    let answer = mount(&service, "broken").await;
    assert!(answer.contains("not done within 50ms"), "{answer}");
    driver.go.add_permits(1);
    tokio::time::sleep(Duration::from_millis(100)).await;
    driver.go.add_permits(1);
    let answer = mount(&service, "quick").await;
    assert!(answer.contains("/place"), "{answer}");
    assert!(heard.try_recv().is_err());
}
