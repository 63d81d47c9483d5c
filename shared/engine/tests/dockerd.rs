//! The client against a real engine, in namespaces of its own.
#![cfg(test)]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use drover_engine::{ApiVersion, CreateNetwork, Engine, EventFilter, Ipam, IpamConfig, Network};
use drover_testkit::capability::{Capability, can_test};

/// An engine whose processes all end with it.
struct RealEngine {
    unshare: Child,
    folder: tempfile::TempDir,
}

impl RealEngine {
    /// Starts one.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "mount -t tmpfs tmpfs /run && ip link set lo up && exec dockerd --data-root {0}/data \
             --exec-root /run/docker-exec --pidfile /run/dockerd.pid -H unix://{0}/docker.sock",
            folder.path().display()
        );
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let unshare = Command::new("unshare")
            .args([
                "--mount",
                "--net",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
            ])
            .args(["sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { unshare, folder }
    }

    fn address(&self) -> String {
        format!("unix://{}/docker.sock", self.folder.path().display())
    }

    async fn ready(&self) -> Engine {
        let engine = Engine::new(&self.address()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while engine.networks().await.is_err() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "dockerd does not answer:\n{log}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        engine
    }
}

impl Drop for RealEngine {
    fn drop(&mut self) {
        drop(self.unshare.kill());
        drop(self.unshare.wait());
    }
}

fn bridge(name: &str) -> CreateNetwork {
    let config = IpamConfig {
        subnet: "198.51.100.0/24".to_owned(),
        ip_range: "198.51.100.64/26".to_owned(),
        gateway: "198.51.100.9".to_owned(),
        auxiliary_addresses: [("printer".to_owned(), "198.51.100.8".to_owned())].into(),
    };
    CreateNetwork {
        name: name.to_owned(),
        driver: "bridge".to_owned(),
        internal: true,
        ipam: Ipam {
            driver: "default".to_owned(),
            config: vec![config],
            ..Ipam::default()
        },
        options: [(
            "com.docker.network.driver.mtu".to_owned(),
            "1400".to_owned(),
        )]
        .into(),
        labels: [("com.example.label".to_owned(), "one".to_owned())].into(),
        ..CreateNetwork::default()
    }
}

fn assert_same(created: &Network, asked: &CreateNetwork) {
    assert_eq!(created.name, asked.name);
    assert_eq!(created.labels, asked.labels);
    assert_eq!(created.options, asked.options);
    assert_eq!(created.ipam.config, asked.ipam.config);
    assert!(created.internal);
}

#[tokio::test]
async fn networks_are_created_found_reported_and_removed() {
    if !can_test(&[Capability::Namespaces, Capability::Dockerd]) {
        return;
    }
    let real = RealEngine::start();
    let engine = real.ready().await;
    assert!(engine.api_version().await.unwrap() <= ApiVersion::NEWEST);
    assert!(!engine.version().await.unwrap().version.is_empty());

    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let mut events = engine.events(EventFilter::Networks, since).await.unwrap();
    let id = engine.create_network(&bridge("app")).await.unwrap();
    let event = tokio::time::timeout(Duration::from_secs(10), events.next());
    let event = event.await.unwrap().unwrap().unwrap();
    assert_eq!(
        (event.kind.as_str(), event.action.as_str()),
        ("network", "create")
    );
    assert_eq!(
        (event.actor.id, event.actor.attributes["type"].as_str()),
        (id.clone(), "bridge")
    );

    assert_same(&engine.network(&id).await.unwrap(), &bridge("app"));
    assert!(
        engine
            .networks()
            .await
            .unwrap()
            .iter()
            .any(|network| network.id == id)
    );
    let twice = engine.create_network(&bridge("app")).await.unwrap_err();
    assert!(twice.is_name_taken(), "{twice}");

    engine.remove_network(&id).await.unwrap();
    assert!(engine.remove_network(&id).await.unwrap_err().is_not_found());
    assert!(engine.network(&id).await.unwrap_err().is_not_found());
    assert!(engine.running_containers().await.unwrap().is_empty());

    let address = real.address();
    drop(real);
    assert!(engine.networks().await.unwrap_err().is_unavailable());
    assert!(
        Engine::new(&address)
            .unwrap()
            .version()
            .await
            .unwrap_err()
            .is_unavailable()
    );
}
