//! The client against servers that are there, are not there, and stop in the middle.
#![cfg(test)]

#[path = "support/serving.rs"]
mod serving;

use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_control_api::coordinator::{ReleasePool, Status};
use drover_control_api::{Empty, Failure, FailureKind};
use drover_http::control::{self, CallError};
use drover_http::{Client, ClientError, Limits, Method, Request, Response, Service, serve};
use serving::{SOON, Serving};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

#[tokio::test]
async fn nobody_there_is_told_from_somebody_silent() {
    let client = Client::unix("/nonexistent/a.sock");
    let error = client
        .send(Method::GET, "/x", None, SOON)
        .await
        .unwrap_err();
    assert!(error.is_connect(), "{error}");

    let serving = Serving::start(Limits::default());
    let began = Instant::now();
    let limit = Duration::from_millis(100);
    let error = serving
        .client()
        .send(Method::POST, "/wait", None, limit)
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn docker_hosts_are_read_as_docker_reads_them() {
    for good in [
        "unix:///var/run/docker.sock",
        "tcp://192.0.2.1:2375",
        "tcp://[::1]:2375/",
    ] {
        assert!(Client::tcp_docker_host(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "/var/run/docker.sock",
        "unix://a.sock",
        "tcp://host",
        "tcp://:1",
        "ssh://h",
    ] {
        let error = Client::tcp_docker_host(bad).unwrap_err();
        assert!(error.to_string().contains("unix:///PATH"), "{error}");
    }
}

/// Answers one TCP connection with these bytes, and returns what was asked.
async fn answer_once(listener: TcpListener, bytes: &'static str) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = vec![0; 4096];
    let length = stream.read(&mut request).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    String::from_utf8_lossy(&request[..length]).into_owned()
}

async fn ask_over_tcp(bytes: &'static str) -> (Result<drover_http::Answer, ClientError>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("tcp://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(answer_once(listener, bytes));
    let client = Client::tcp_docker_host(&host).unwrap();
    let answer = client.send(Method::GET, "/v1.40/info", None, SOON).await;
    (answer, server.await.unwrap())
}

#[tokio::test]
async fn an_engine_over_tcp_is_asked_with_its_name_as_host() {
    let (answer, asked) = ask_over_tcp("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
    assert_eq!(&answer.unwrap().body[..], b"{}");
    assert!(asked.to_lowercase().contains("host: 127.0.0.1:"), "{asked}");
}

#[tokio::test]
async fn an_answer_that_is_cut_is_no_answer() {
    let (answer, _) = ask_over_tcp("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{").await;
    assert!(
        matches!(answer, Err(ClientError::Exchange { .. })),
        "{answer:?}"
    );
    let (answer, _) = ask_over_tcp("").await;
    assert!(
        matches!(answer, Err(ClientError::Exchange { .. })),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_stream_that_is_refused_says_why() {
    let serving = Serving::start(Limits::default());
    let error = serving.client().lines("/nowhere").await.unwrap_err();
    let ClientError::Refused { status, body, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(status, 404);
    assert!(body.contains("no method `/nowhere`"), "{body}");
}

/// Knows two methods: one succeeds, one fails.
struct Coordinator;

impl Service for Coordinator {
    async fn call(&self, request: Request) -> Response {
        match request.path.as_str() {
            "/v1/ReleasePool" => {
                let released = control::decode::<ReleasePool>(&request.body).map(|_| Empty {});
                control::answer::<ReleasePool>(released)
            }
            "/v1/Status" => control::answer::<Status>(Err(Failure::new(
                FailureKind::Unavailable,
                "the store is not reachable",
            ))),
            path => Response::not_found(path),
        }
    }
}

#[tokio::test]
async fn control_methods_answer_and_fail_in_types() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    let (_stop, stopped) = watch::channel(false);
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(serve(
        listener,
        Arc::new(Coordinator),
        Limits::default(),
        stopped,
    ));
    let client = Client::unix(&socket);

    let request = ReleasePool {
        pool: "10.42.0.0/16".parse().unwrap(),
    };
    assert_eq!(
        control::call(&client, &request, SOON).await.unwrap(),
        Empty {}
    );

    let error = control::call(&client, &Status {}, SOON).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let CallError::Failure(failure) = error else {
        panic!("{error}")
    };
    assert_eq!(failure.message, "the store is not reachable");

    let answer = client
        .send(Method::POST, "/v1/ReleasePool", None, SOON)
        .await
        .unwrap();
    assert_eq!(answer.status, 400);
    assert!(String::from_utf8_lossy(&answer.body).contains("without a body"));

    let nobody = Client::unix(directory.path().join("none.sock"));
    let error = control::call(&nobody, &Status {}, SOON).await.unwrap_err();
    let failure = Failure::from(error);
    assert_eq!(failure.kind, FailureKind::Unavailable);
    assert!(failure.message.contains("cannot connect to"), "{failure}");
}
