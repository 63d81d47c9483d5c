//! The server against peers that behave, dawdle, exaggerate and vanish.
#![cfg(test)]

#[path = "support/serving.rs"]
mod serving;

use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_http::{Limits, Method, control};
use serving::{SOON, Serving, at_end, happened, post, response, write};

fn quick() -> Limits {
    Limits {
        body: 1000,
        header_read: Duration::from_millis(200),
        ..Limits::default()
    }
}

#[tokio::test]
async fn the_peer_is_who_the_kernel_says() {
    let serving = Serving::start(Limits::default());
    let answer = serving
        .client()
        .send(Method::POST, "/who", None, SOON)
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(
        text.contains(&format!("pid: Some({})", std::process::id())),
        "{text}"
    );
    assert!(text.contains("uid: Some("), "{text}");
    let answer = serving
        .client()
        .send(Method::GET, "/query?a=b&c", None, SOON)
        .await
        .unwrap();
    assert_eq!(&answer.body[..], b"a=b&c");
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request() {
    let serving = Serving::start(Limits::default());
    let mut stream = serving.raw();
    for word in ["one", "two", "three"] {
        stream = write(stream, post("/echo", word)).await.unwrap();
        let (text, again) = response(stream).await;
        assert!(
            text.starts_with("HTTP/1.1 200") && text.ends_with(word),
            "{text}"
        );
        stream = again;
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_the_connection_ends_in_good_order() {
    let serving = Serving::start(quick());
    let long = "x".repeat(3 << 20);
    let announced = post("/echo", &long);
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunked = format!("{head}{:x}\r\n{long}\r\n0\r\n\r\n", long.len()).into_bytes();
    for request in [announced, chunked] {
        let stream = write(serving.raw(), request).await.unwrap();
        let (text, stream) = response(stream).await;
        assert!(text.starts_with("HTTP/1.1 413"), "{text}");
        assert!(text.contains("longer than 1000 bytes"), "{text}");
        assert!(at_end(stream).await);
    }
    let exact = "x".repeat(1000);
    let answer = serving
        .client()
        .send(Method::POST, "/echo", Some(exact.into()), SOON)
        .await;
    assert_eq!(answer.unwrap().status, 200);
}

#[tokio::test]
async fn a_header_that_dawdles_is_cut_and_an_idle_connection_is_not() {
    let serving = Serving::start(quick());
    let idle = serving.raw();
    let kept = write(serving.raw(), post("/echo", "first")).await.unwrap();
    let (_, kept) = response(kept).await;

    let mut slow = serving.raw();
    slow.write_all(b"POST /ec").unwrap();
    let began = Instant::now();
    // The end comes from the server; what it says before, if anything, is not of interest.
    tokio::task::spawn_blocking(move || std::io::copy(&mut slow, &mut std::io::sink()))
        .await
        .unwrap()
        .unwrap();
    assert!(
        began.elapsed() >= Duration::from_millis(150),
        "{:?}",
        began.elapsed()
    );
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );

    // Both have been idle for longer than a header may take.
    for stream in [idle, kept] {
        let stream = write(stream, post("/echo", "still here")).await.unwrap();
        assert!(response(stream).await.0.ends_with("still here"));
    }
}

#[tokio::test]
async fn each_header_has_its_own_time() {
    let serving = Serving::start(quick());
    let (first, second) = (post("/wait", ""), post("/echo", "second"));
    let mut stream = serving.raw();
    stream.write_all(&first[..9]).unwrap();
    // Another connection's round trip: the server waits for the rest of the first header by then.
    serving
        .client()
        .send(Method::POST, "/echo", None, SOON)
        .await
        .unwrap();
    stream.write_all(&first[9..]).unwrap();
    happened(1, &serving.service.began).await;
    stream.write_all(&second[..9]).unwrap();
    // Time passes: the first header's is over when the call ends.
    tokio::time::sleep(quick().header_read * 2).await;
    serving.service.go.add_permits(1);
    let (text, mut stream) = response(stream).await;
    assert!(text.ends_with("waited"), "{text}");
    stream.write_all(&second[9..]).unwrap();
    let (text, _) = response(stream).await;
    assert!(text.ends_with("second"), "{text}");
}

#[tokio::test]
async fn an_idle_limit_closes_what_says_nothing() {
    let limits = Limits {
        idle: Some(Duration::from_millis(100)),
        ..Limits::default()
    };
    let serving = Serving::start(limits);
    assert!(at_end(serving.raw()).await);
}

#[tokio::test]
async fn a_body_that_dawdles_is_refused() {
    let serving = Serving::start(quick());
    let head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf".to_vec();
    let (text, stream) = response(write(serving.raw(), head).await.unwrap()).await;
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    assert!(at_end(stream).await);
}

#[tokio::test]
async fn a_peer_that_vanishes_in_mid_body_reaches_no_service() {
    let serving = Serving::start(Limits::default());
    let head = b"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf".to_vec();
    drop(write(serving.raw(), head).await.unwrap());
    let answer = serving
        .client()
        .send(Method::POST, "/echo", Some(b"ok".to_vec()), SOON)
        .await;
    assert_eq!(answer.unwrap().status, 200);
    let began = serving.service.began.acquire();
    assert!(
        tokio::time::timeout(Duration::from_millis(200), began)
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_run_at_a_time() {
    let serving = Serving::start(Limits::default());
    let client = serving.client();
    let call = |_| {
        let client = client.clone();
        tokio::spawn(async move { client.send(Method::POST, "/wait", None, SOON).await })
    };
    let calls: Vec<_> = (0..40).map(call).collect();
    happened(40, &serving.service.began).await;
    serving.service.go.add_permits(40);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status, 200);
    }
}

#[tokio::test]
async fn more_connections_than_allowed_wait_their_turn() {
    let serving = Serving::start(Limits {
        connections: 1,
        ..Limits::default()
    });
    let first = write(serving.raw(), post("/echo", "first")).await.unwrap();
    let (_, first) = response(first).await;
    let client = serving.client();
    let limit = Duration::from_millis(200);
    let early = client
        .send(Method::POST, "/echo", None, limit)
        .await
        .unwrap_err();
    assert!(early.to_string().contains("not answered"), "{early}");
    drop(first);
    assert_eq!(
        client
            .send(Method::POST, "/echo", None, SOON)
            .await
            .unwrap()
            .status,
        200
    );
}

#[tokio::test]
async fn a_call_outlives_its_asker() {
    let serving = Serving::start(Limits::default());
    let stream = write(serving.raw(), post("/wait", "")).await.unwrap();
    happened(1, &serving.service.began).await;
    drop(stream);
    serving.service.go.add_permits(1);
    happened(1, &serving.service.ended).await;
}

#[tokio::test]
async fn a_bug_in_a_call_is_answered_and_harms_no_other() {
    let serving = Serving::start(Limits::default());
    let client = serving.client();
    assert_eq!(
        client
            .send(Method::POST, "/bug", None, SOON)
            .await
            .unwrap()
            .status,
        500
    );
    assert_eq!(
        client
            .send(Method::POST, "/echo", None, SOON)
            .await
            .unwrap()
            .status,
        200
    );
}

#[tokio::test]
async fn a_stop_waits_for_the_call_that_is_under_way() {
    let serving = Serving::start(Limits::default());
    let idle = serving.raw();
    let stream = write(serving.raw(), post("/wait", "")).await.unwrap();
    happened(1, &serving.service.began).await;
    serving.stop.send(true).unwrap();
    assert!(at_end(idle).await, "an idle connection is closed at once");
    serving.service.go.add_permits(1);
    let (text, stream) = response(stream).await;
    assert!(
        text.starts_with("HTTP/1.1 200") && text.ends_with("waited"),
        "{text}"
    );
    assert!(at_end(stream).await);
    serving.ended().await;
}

#[tokio::test]
async fn a_stop_waits_for_a_call_whose_asker_has_gone() {
    let serving = Serving::start(Limits::default());
    drop(write(serving.raw(), post("/wait", "")).await.unwrap());
    happened(1, &serving.service.began).await;
    serving.stop.send(true).unwrap();
    let service = serving.service.clone();
    let ended = tokio::spawn(async move { serving.ended().await });
    service.go.add_permits(1);
    happened(1, &service.ended).await;
    ended.await.unwrap();
}

#[tokio::test]
async fn a_request_that_was_sent_before_the_stop_is_answered() {
    for round in 0..40 {
        let serving = Serving::start(Limits::default());
        let (_, mut stream) =
            response(write(serving.raw(), post("/echo", "warm")).await.unwrap()).await;
        // One thread and no await in between: the server sees both at the same moment.
        stream.write_all(&post("/echo", "just in time")).unwrap();
        serving.stop.send(true).unwrap();
        let (text, mut stream) = response(stream).await;
        assert!(text.ends_with("just in time"), "round {round}: {text}");
        serving.ended().await;
        assert!(
            stream.write_all(&post("/echo", "too late")).is_err(),
            "round {round}"
        );
    }
}

#[tokio::test]
async fn a_stop_between_the_halves_of_a_header_loses_nothing() {
    let serving = Serving::start(Limits::default());
    let request = post("/echo", "in two halves");
    let (_, mut stream) = response(write(serving.raw(), post("/echo", "1")).await.unwrap()).await;
    stream.write_all(&request[..12]).unwrap();
    // Another connection's round trip: the server has read the first half by then.
    serving
        .client()
        .send(Method::POST, "/echo", None, SOON)
        .await
        .unwrap();
    serving.stop.send(true).unwrap();
    tokio::task::yield_now().await;
    let (text, _) = response(write(stream, request[12..].to_vec()).await.unwrap()).await;
    assert!(text.ends_with("in two halves"), "{text}");
    assert!(text.to_lowercase().contains("connection: close"), "{text}");
    serving.ended().await;
}

#[tokio::test]
async fn a_stream_is_sent_as_it_comes_and_ends_at_a_stop() {
    let serving = Serving::start(Limits::default());
    let mut lines = serving.client().lines("/stream").await.unwrap();
    let sender = serving.service.streams.lock().unwrap().pop().unwrap();
    for text in ["{\"a\":1}\n", "\n", "{\"b\"", ":2}\r\n{\"c\":3}\n"] {
        sender
            .send(Bytes::from_static(text.as_bytes()))
            .await
            .unwrap();
    }
    for expected in ["{\"a\":1}", "", "{\"b\":2}", "{\"c\":3}"] {
        let line = tokio::time::timeout(SOON, lines.next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(line.as_deref(), Some(expected));
    }
    serving.stop.send(true).unwrap();
    assert_eq!(
        tokio::time::timeout(SOON, lines.next())
            .await
            .unwrap()
            .unwrap(),
        None
    );
    serving.ended().await;
}

#[tokio::test]
async fn events_of_a_stream_are_read_and_what_is_none_ends_it() {
    let serving = Serving::start(Limits::default());
    let mut lines = serving.client().lines("/stream").await.unwrap();
    let sender = serving.service.streams.lock().unwrap().pop().unwrap();
    for text in ["\n", "1\n", "\n\n2\n", "three\n"] {
        let text = Bytes::from_static(text.as_bytes());
        sender.send(text).await.unwrap();
    }
    for expected in [1, 2] {
        let event = control::next_event::<u32>(&mut lines).await.unwrap();
        assert_eq!(event, Some(expected), "signs of life are no events");
    }
    let error = control::next_event::<u32>(&mut lines).await.unwrap_err();
    assert_eq!(error.to_string(), "a line of it is not an event");
    serving.stop.send(true).unwrap();
    let end = control::next_event::<u32>(&mut lines).await.unwrap();
    assert_eq!(end, None);
    serving.ended().await;
}

#[tokio::test]
async fn the_sender_of_a_stream_learns_that_nobody_listens() {
    let serving = Serving::start(Limits::default());
    let lines = serving.client().lines("/stream").await.unwrap();
    let sender = serving.service.streams.lock().unwrap().pop().unwrap();
    drop(lines);
    let gone = async {
        // A socket tells that its other end has gone when it is written to.
        while sender.send(Bytes::from_static(b"\n")).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, gone).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_waits_in_the_queue_at_a_stop_is_answered() {
    for round in 0..20 {
        let serving = Serving::start(Limits::default());
        // One thread and no await in between: nothing of this is accepted yet.
        let streams = [(); 3].map(|()| {
            let mut stream = serving.raw();
            stream.write_all(&post("/echo", "queued")).unwrap();
            stream
        });
        serving.stop.send(true).unwrap();
        for stream in streams {
            let (text, _) = response(stream).await;
            assert!(text.ends_with("queued"), "round {round}: {text}");
        }
        serving.ended().await;
    }
}
