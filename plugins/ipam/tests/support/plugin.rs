//! The plugin in a folder of its own, and what an engine asks of it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use drover_control_api::Method;
use drover_daemon::Settings;
use drover_http::Client;
use drover_http::control::call;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::cluster::Cluster;

/// How long a call, or a condition, may take.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(crate) struct Plugin {
    client: Client,
    settings: Settings,
    folder: Arc<tempfile::TempDir>,
    running: Arc<Running>,
}

struct Running {
    stop: watch::Sender<bool>,
    task: Mutex<Option<tokio::task::JoinHandle<anyhow::Result<()>>>>,
}

impl Plugin {
    pub(crate) async fn start(cluster: &Cluster) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self::start_in(folder, cluster).await
    }

    async fn start_in(folder: Arc<tempfile::TempDir>, cluster: &Cluster) -> Self {
        let settings = Settings {
            state_dir: folder.path().join("state"),
            plugin_dir: folder.path().join("plugins"),
            run_dir: cluster.run_folder(),
            ..Settings::default()
        };
        let (stop, stopped) = watch::channel(false);
        let socket = settings.plugin_socket(drover_ipam::NAME);
        let task = tokio::spawn(drover_ipam::run(settings.clone(), stopped));
        let running = Arc::new(Running {
            stop,
            task: Mutex::new(Some(task)),
        });
        let plugin = Self {
            client: Client::unix(&socket),
            settings,
            folder,
            running,
        };
        plugin
            .until("the socket", async || {
                tokio::net::UnixStream::connect(&socket).await.is_ok()
            })
            .await;
        plugin
    }

    /// Ends the process and starts it again, on the same state.
    pub(crate) async fn restart(self, cluster: &Cluster) -> Self {
        self.stop().await;
        Self::start_in(self.folder.clone(), cluster).await
    }

    /// The same while the coordinator is away: nothing is compared.
    pub(crate) async fn restart_without_sync(self, cluster: &Cluster) -> Self {
        cluster.stop().await;
        self.restart(cluster).await
    }

    /// The same, with the state gone.
    pub(crate) async fn restart_without_state(self, cluster: &Cluster) -> Self {
        self.stop().await;
        std::fs::remove_dir_all(&self.settings.state_dir).unwrap();
        Self::start_in(self.folder.clone(), cluster).await
    }

    async fn stop(&self) {
        self.running.stop.send_replace(true);
        let task = self.running.task.lock().unwrap().take();
        task.unwrap().await.unwrap().unwrap();
    }

    /// Waits for a condition.
    pub(crate) async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let began = Instant::now();
        while !condition().await {
            assert!(began.elapsed() < LIMIT, "waited in vain for {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A call of the engine.
    pub(crate) async fn call(&self, method: &str, request: &Value) -> Value {
        let path = format!("/IpamDriver.{method}");
        let body = Some(request.to_string().into_bytes());
        let answer = self
            .client
            .send(drover_http::Method::POST, &path, body, LIMIT)
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "{path}");
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// A call of the coordinator or the command line.
    pub(crate) async fn own<M: Method>(&self, request: &M) -> M::Answer {
        call(&self.client, request, LIMIT).await.unwrap()
    }

    pub(crate) async fn activate(&self) {
        let path = "/Plugin.Activate";
        self.client
            .send(drover_http::Method::POST, path, None, LIMIT)
            .await
            .unwrap();
    }

    pub(crate) async fn pool(&self, subnet: &str) -> String {
        let request = json!({
            "AddressSpace": "drover", "Pool": subnet, "SubPool": "", "Options": null, "V6": false
        });
        let answer = self.call("RequestPool", &request).await;
        answer["PoolID"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"))
            .to_owned()
    }

    pub(crate) async fn release_pool(&self, pool: &str) {
        assert_eq!(
            self.call("ReleasePool", &json!({"PoolID": pool})).await,
            json!({})
        );
    }

    pub(crate) async fn gateway(&self, pool: &str, address: &str) -> String {
        let options = json!({"RequestAddressType": "com.docker.network.gateway"});
        self.request(pool, address, options).await.unwrap()
    }

    pub(crate) async fn auxiliary(&self, pool: &str, address: &str) -> String {
        self.request(pool, address, Value::Null).await.unwrap()
    }

    pub(crate) async fn address(
        &self,
        pool: &str,
        address: &str,
        number: u8,
    ) -> Result<String, String> {
        let options = json!({"com.docker.network.endpoint.macaddress": mac(number)});
        self.request(pool, address, options).await
    }

    async fn request(&self, pool: &str, address: &str, options: Value) -> Result<String, String> {
        let request = json!({"PoolID": pool, "Address": address, "Options": options});
        let answer = self.call("RequestAddress", &request).await;
        match answer["Address"].as_str() {
            Some(address) => Ok(address.to_owned()),
            None => Err(error_of(&answer)),
        }
    }

    pub(crate) async fn release(&self, pool: &str, address: &str) {
        let request = json!({"PoolID": pool, "Address": address});
        assert_eq!(self.call("ReleaseAddress", &request).await, json!({}));
    }
}

/// The sentence of a refusal.
pub(crate) fn error_of(answer: &Value) -> String {
    answer["Error"]
        .as_str()
        .unwrap_or_else(|| panic!("no error: {answer}"))
        .to_owned()
}

pub(crate) fn mac(number: u8) -> String {
    format!("02:00:00:00:00:{number:02x}")
}
