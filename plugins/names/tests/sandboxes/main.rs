//! The real process and real namespaces: queries of containers, and what becomes of them when things come and go.
#![cfg(test)]

mod host;
mod sandbox;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use drover_control_api::names::{AwaitSandbox, HookKind, Lookup, LookupOutcome, Names};
use drover_control_api::registry::RegistryEvent;
use drover_testkit::capability::{Capability, can_test};
use drover_testkit::shell::wait_for;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use host::{Host, container, is_there};
use sandbox::{DOCKERS, Sandbox, ask_with, end_get, question, read, write};

/// Puts the test's thread into a mount namespace of its own; `false` where there can be none.
fn prepared() -> bool {
    if !can_test(&[Capability::Namespaces, Capability::Nftables]) {
        return false;
    }
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    true
}

/// A host with a sandbox of a container `web` on it, which is served and known.
fn host_and_web() -> (Host, Sandbox) {
    let host = Host::start();
    host.say(is_there(container(1, "web", "a", "10.64.0.1")));
    host.say(is_there(container(2, "db", "b", "10.64.1.2")));
    let sandbox = Sandbox::new(&host.sandboxes(), "web");
    sandbox.join("eth0", "10.64.0.1");
    wait_for("the sandbox is served", || {
        let served = host.served(sandbox.path());
        served.is_some_and(|it| it.hook != HookKind::Absent && it.name.as_deref() == Some("web"))
    });
    (host, sandbox)
}

#[test]
fn ours_is_answered_and_all_else_is_dockers() {
    if !prepared() {
        return;
    }
    let (host, web) = host_and_web();
    for _ in 0..3 {
        assert_eq!(web.ask("db"), ["10.64.1.2"]);
        assert_eq!(web.ask("db.app"), ["10.64.1.2"]);
        assert_eq!(web.ask("example.com"), [DOCKERS]);
        assert_eq!(web.ask_by_connection("db"), ["10.64.1.2"]);
        assert_eq!(web.ask_by_connection("example.com"), [DOCKERS]);
    }
    // Answers are counted after they were sent.
    wait_for("the last answer is counted", || {
        let counters = host.served(web.path()).unwrap().counters;
        counters.answered + counters.passed_on >= 15
    });
    let entry = host.served(web.path()).unwrap();
    assert_eq!(entry.networks, ["app"]);
    let counters = entry.counters;
    assert_eq!((counters.udp, counters.tcp), (9, 6));
    assert_eq!((counters.answered, counters.passed_on), (9, 6));
    assert!(counters.own_latency.p50 > 0 && counters.passed_on_latency.p99 > 0);
    let lookup = Lookup {
        name: "db".to_owned(),
        kind: Some("A".to_owned()),
        network: None,
        from: Some("web".to_owned()),
    };
    let explanation = host.ask(&lookup).unwrap();
    assert_eq!(explanation.outcome, LookupOutcome::Answered);
    assert_eq!(explanation.records[0].data, "10.64.1.2");
    let table = host.ask(&Names::default()).unwrap();
    assert!(table.networks[0].names.iter().any(|it| it.name == "db"));
}

#[test]
fn a_first_query_waits_to_be_told_whose_it_is() {
    if !prepared() {
        return;
    }
    let host = Host::start();
    host.say(is_there(container(2, "db", "b", "10.64.1.2")));
    host.endpoint("10.64.0.1");
    let web = Sandbox::new(&host.sandboxes(), "web");
    web.join("eth0", "10.64.0.1");
    wait_for("the sandbox is served", || {
        host.served(web.path())
            .is_some_and(|it| it.hook != HookKind::Absent)
    });
    let client = web.client();
    client.send(&question("db")).unwrap();
    host.say(is_there(container(1, "web", "a", "10.64.0.1")));
    let mut buffer = [0; 512];
    let length = client.recv(&mut buffer).unwrap();
    assert!(
        buffer[..length].ends_with(&[10, 64, 1, 2]),
        "the registry's answer"
    );
}

/// Engines from 28 make the sandbox long before the process; the registry knows a container when its process runs.
#[test]
fn a_first_query_is_answered_however_long_the_process_took_to_start() {
    if !prepared() {
        return;
    }
    let host = Host::start();
    host.say(is_there(container(2, "db", "b", "10.64.1.2")));
    host.endpoint("10.64.0.1");
    let web = Sandbox::new(&host.sandboxes(), "web");
    web.join("eth0", "10.64.0.1");
    wait_for("the sandbox is served", || {
        host.served(web.path())
            .is_some_and(|it| it.hook != HookKind::Absent)
    });
    std::thread::sleep(Duration::from_secs(4));
    let client = web.client();
    client.send(&question("db")).unwrap();
    let mut stream = web.connect();
    write(&mut stream, &question("db"));
    let page = web.begin_get("/self/name");
    std::thread::sleep(Duration::from_millis(500));
    host.say(is_there(container(1, "web", "a", "10.64.0.1")));
    let mut buffer = [0; 512];
    let length = client.recv(&mut buffer).unwrap();
    assert!(buffer[..length].ends_with(&[10, 64, 1, 2]), "by datagram");
    let answer = read(&mut stream).unwrap();
    assert!(answer.ends_with(&[10, 64, 1, 2]), "by connection");
    assert!(end_get(page).ends_with("\r\n\r\nweb\n"), "over HTTP");
}

#[test]
fn a_query_does_not_wait_for_ever() {
    if !prepared() {
        return;
    }
    let host = Host::start();
    host.endpoint("10.64.0.1");
    let web = Sandbox::new(&host.sandboxes(), "web");
    web.join("eth0", "10.64.0.1");
    wait_for("the sandbox is served", || {
        host.served(web.path())
            .is_some_and(|it| it.hook != HookKind::Absent)
    });
    assert_eq!(web.ask("example.com"), [DOCKERS]);
    assert_eq!(web.ask_by_connection("example.com"), [DOCKERS]);
}

#[test]
fn a_killed_process_leaves_docker_as_it_was() {
    if !prepared() {
        return;
    }
    let (mut host, web) = host_and_web();
    let client = web.client();
    assert_eq!(ask_with(&client, "db").unwrap(), ["10.64.1.2"]);
    let begun = Instant::now();
    host.kill();
    assert_eq!(
        ask_with(&client, "example.com").unwrap(),
        [DOCKERS],
        "the same socket"
    );
    assert_eq!(web.ask_by_connection("example.com"), [DOCKERS]);
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "not after a time-out"
    );
    assert!(
        !web.run("nft list tables").contains("drover"),
        "no rule is left"
    );
    let during = Sandbox::new(&host.sandboxes(), "during");
    during.join("eth0", "10.64.0.3");
    host.say(is_there(container(3, "during", "a", "10.64.0.3")));
    host.begin();
    let after = Sandbox::new(&host.sandboxes(), "after");
    after.join("eth0", "10.64.0.4");
    host.say(is_there(container(4, "after", "a", "10.64.0.4")));
    for sandbox in [&web, &during, &after] {
        wait_for("all are served", || sandbox.ask("db") == ["10.64.1.2"]);
    }
    assert_eq!(
        ask_with(&client, "db").unwrap(),
        ["10.64.1.2"],
        "the same socket"
    );
}

#[test]
fn dockers_resolver_may_come_back_at_another_port() {
    if !prepared() {
        return;
    }
    let (_host, mut web) = host_and_web();
    for _ in 0..3 {
        // A query may be with the one that ends.
        wait_for("Docker's resolver answers", || {
            ask_with(&web.client(), "example.com").is_some_and(|it| it == [DOCKERS])
        });
        web.restart_docker();
    }
    wait_for("Docker's resolver answers", || {
        ask_with(&web.client(), "example.com").is_some_and(|it| it == [DOCKERS])
    });
    assert_eq!(web.ask("db"), ["10.64.1.2"]);
}

/// As up to Engine 27: the sandbox comes when all is known of it, and its process soon afterwards.
#[test]
fn a_sandbox_that_was_joined_before_is_served_without_an_address() {
    if !prepared() {
        return;
    }
    let host = Host::start();
    host.joined("10.64.0.1", "web");
    let web = Sandbox::new(&host.sandboxes(), "web");
    let other = Sandbox::new(&host.sandboxes(), "other");
    wait_for("web is served", || {
        web.run("nft list tables").contains("drover")
    });
    web.join("eth0", "172.18.0.2");
    web.join("eth1", "10.64.0.1");
    host.say(is_there(container(1, "web", "a", "10.64.0.1")));
    wait_for("it is told of itself", || web.ask("web") == ["10.64.0.1"]);
    assert!(!other.run("nft list tables").contains("drover"));
}

#[test]
fn a_sandbox_is_waited_for_until_it_is_served() {
    if !prepared() {
        return;
    }
    let host = Host::start();
    let web = Sandbox::new(&host.sandboxes(), "web");
    // As an engine names it, whose folder is a link.
    let wait = |name: &str, patience| {
        let folder = host.sandboxes().join(".");
        let sandbox = folder.join(name).display().to_string();
        let asked = AwaitSandbox { sandbox, patience };
        host.ask(&asked).unwrap().served
    };
    assert!(!wait("nobody", 60_000), "there is no such namespace");
    assert!(!wait("web", 50), "it has no address of ours");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wait("web", 60_000));
        host.endpoint("10.64.0.1");
        web.join("eth0", "10.64.0.1");
        assert!(waiting.join().unwrap());
    });
    assert!(web.run("nft list tables").contains("drover"));
}

#[test]
fn a_sandbox_is_served_while_it_is_on_a_network_of_ours() {
    if !prepared() {
        return;
    }
    let host = Host::start();
    host.say(is_there(container(2, "db", "b", "10.64.1.2")));
    let web = Sandbox::new(&host.sandboxes(), "web");
    web.join("eth0", "172.17.0.2");
    let other = Sandbox::new(&host.sandboxes(), "other");
    other.join("eth0", "10.64.0.9");
    host.say(is_there(container(9, "other", "a", "10.64.0.9")));
    wait_for("the other is served", || other.ask("db") == ["10.64.1.2"]);
    assert_eq!(web.ask("db"), [DOCKERS], "not ours");
    assert!(!web.run("nft list tables").contains("drover"));
    host.say(is_there(container(1, "web", "a", "10.64.0.1")));
    web.join("eth1", "10.64.0.1");
    wait_for("it is served", || web.ask("db") == ["10.64.1.2"]);
    web.leave("eth1");
    wait_for("it is Docker's again", || web.ask("db") == [DOCKERS]);
    assert!(!web.run("nft list tables").contains("drover"));
    let path = other.path().to_owned();
    drop(other);
    wait_for("a sandbox that has gone is let go", || {
        host.served(&path).is_none()
    });
    let total = host.report().counters;
    assert!(
        total.answered > 0,
        "what it asked is still counted: {total:?}"
    );
}

#[test]
fn what_is_known_is_served_while_the_coordinator_is_away() {
    if !prepared() {
        return;
    }
    let (mut host, web) = host_and_web();
    host.stop_coordinator();
    wait_for("it is noticed", || host.report().stale_since.is_some());
    assert_eq!(web.ask("db"), ["10.64.1.2"]);
    wait_for(
        "the answer is counted as one that may be out of date",
        || host.served(web.path()).unwrap().counters.stale == 1,
    );
}

/// Nobody tells of it, and its network is known by its pool.
#[test]
fn a_sandbox_that_begins_while_the_coordinator_is_away_finds_who_is_known() {
    if !prepared() {
        return;
    }
    let (mut host, _web) = host_and_web();
    host.stop_coordinator();
    wait_for("it is noticed", || host.report().stale_since.is_some());
    let new = Sandbox::new(&host.sandboxes(), "new");
    host.joined("10.64.0.7", "new");
    new.join("eth0", "10.64.0.7");
    wait_for("it finds who is known", || new.ask("db") == ["10.64.1.2"]);
    assert_eq!(host.served(new.path()).unwrap().networks, ["app"]);
    let other = Sandbox::new(&host.sandboxes(), "other");
    other.join("eth0", "172.17.0.2");
    assert_eq!(other.ask("db"), [DOCKERS], "it has no place on the network");
}

#[test]
fn what_changes_is_told_at_once() {
    if !prepared() {
        return;
    }
    let (host, web) = host_and_web();
    host.say(is_there(container(3, "cache", "b", "10.64.1.3")));
    wait_for("it is there", || web.ask("cache") == ["10.64.1.3"]);
    host.say(RegistryEvent::ContainerGone {
        host: "b".parse().unwrap(),
        id: format!("{:064x}", 3),
    });
    wait_for("it is gone", || web.ask("cache") == [DOCKERS]);
    host.say(RegistryEvent::Host {
        name: "b".parse().unwrap(),
        member: "m".to_owned(),
        alive: false,
    });
    wait_for("its host is gone", || web.ask("db") == [DOCKERS]);
}

#[test]
fn one_that_floods_disturbs_nobody() {
    if !prepared() {
        return;
    }
    let (host, web) = host_and_web();
    let loud = Sandbox::new(&host.sandboxes(), "loud");
    loud.join("eth0", "10.64.0.3");
    host.say(is_there(container(3, "loud", "a", "10.64.0.3")));
    wait_for("it is served", || loud.ask("db") == ["10.64.1.2"]);
    let open: Vec<TcpStream> = (0..1000).map(|_| loud.connect()).collect();
    let flooding: Vec<_> = (0..2)
        .map(|_| {
            let client = loud.client();
            std::thread::spawn(move || {
                let end = Instant::now() + Duration::from_secs(3);
                while Instant::now() < end {
                    drop(client.send(&question("db")));
                    drop(client.send(&[0xff; 4000]));
                }
            })
        })
        .collect();
    for _ in 0..50 {
        assert_eq!(web.ask("db"), ["10.64.1.2"]);
        assert_eq!(web.ask("example.com"), [DOCKERS]);
        assert_eq!(web.ask_by_connection("db"), ["10.64.1.2"]);
    }
    for thread in flooding {
        thread.join().unwrap();
    }
    drop(open);
    let counters = host.served(loud.path()).unwrap().counters;
    assert!(counters.over_limit >= 900, "{counters:?}");
    assert!(counters.malformed > 0, "{counters:?}");
    assert_eq!(host.served(web.path()).unwrap().counters.over_limit, 0);
    wait_for("it is served again", || {
        loud.ask_by_connection("db") == ["10.64.1.2"]
    });
}

#[test]
fn what_is_no_query_ends_a_connection_or_is_answered() {
    if !prepared() {
        return;
    }
    let (_host, web) = host_and_web();
    let mut stream = web.connect();
    write(&mut stream, &[0; 5]);
    assert_eq!(read(&mut stream), None, "closed");
    let mut stream = web.connect();
    let mut long = question("db");
    long.resize(65_535, 0);
    write(&mut stream, &long);
    assert!(read(&mut stream).is_some(), "64 KiB");
    write(&mut stream, &question("db"));
    write(&mut stream, &question("example.com"));
    assert!(read(&mut stream).unwrap().ends_with(&[10, 64, 1, 2]));
    assert!(read(&mut stream).is_some(), "the one behind it");
}

#[test]
fn hundreds_of_sandboxes_at_once() {
    if !prepared() {
        return;
    }
    let host = Host::start();
    host.say(is_there(container(9999, "db", "b", "10.64.1.2")));
    let sandboxes: Vec<_> = (1..=100_u32)
        .map(|number| {
            let address = format!("10.64.0.{number}");
            let sandbox = Sandbox::new(&host.sandboxes(), &format!("web-{number}"));
            host.endpoint(&address);
            sandbox.join("eth0", &address);
            let name = format!("web-{number}");
            host.say(is_there(container(number, &name, "a", &address)));
            sandbox
        })
        .collect();
    for sandbox in &sandboxes {
        wait_for("each is served", || sandbox.ask("db") == ["10.64.1.2"]);
    }
    assert_eq!(host.report().sandboxes.len(), 100);
    assert!(
        host.report()
            .sandboxes
            .iter()
            .all(|it| it.complaint.is_none())
    );
}

#[test]
fn what_was_asked_can_be_scraped() {
    if !prepared() {
        return;
    }
    let (host, web) = host_and_web();
    assert_eq!(web.ask("db"), ["10.64.1.2"]);
    assert_eq!(web.ask("example.com"), [DOCKERS]);
    wait_for("both are counted", || {
        let answer = host.get("/metrics");
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        head.contains("text/plain; version=0.0.4")
            && [
                "# TYPE drover_names_answers_total counter",
                "drover_names_queries_total{container=\"web\",transport=\"udp\"} 2",
                "drover_names_answers_total{container=\"web\",kind=\"records\"} 1",
                "drover_names_answers_total{container=\"web\",kind=\"passed_on\"} 1",
                "drover_names_latency_seconds_bucket{answered_by=\"drover\",le=\"+Inf\"} 1",
                "drover_names_latency_seconds_count{answered_by=\"docker\"} 1",
                "drover_names_followed 1",
                "drover_names_stale_seconds 0",
                "drover_names_containers 2",
                "drover_names_sandboxes{hook=\"owned\"} 1",
            ]
            .iter()
            .all(|line| text.lines().any(|other| other == *line))
    });
}

/// Wake-ups of all threads are counted by the kernel: with nothing to do there is the look at the folder, once a second.
#[test]
fn a_quiet_sandbox_costs_no_wake_ups() {
    if !prepared() {
        return;
    }
    let host = Host::start();
    host.say(is_there(container(9999, "db", "b", "10.64.1.2")));
    let sandboxes: Vec<_> = (1..=40_u32)
        .map(|number| {
            let address = format!("10.64.0.{number}");
            let name = format!("web-{number}");
            let sandbox = Sandbox::new(&host.sandboxes(), &name);
            sandbox.join("eth0", &address);
            host.say(is_there(container(number, &name, "a", &address)));
            sandbox
        })
        .collect();
    for sandbox in &sandboxes {
        wait_for("each is served", || sandbox.ask("db") == ["10.64.1.2"]);
    }
    // Twice a second for each would be 160 in two seconds.
    wait_for("it is quiet", || {
        let before = host.wake_ups();
        std::thread::sleep(Duration::from_secs(2));
        host.wake_ups() - before < 40
    });
}

#[test]
fn a_container_reads_about_itself() {
    if !prepared() {
        return;
    }
    let (_host, web) = host_and_web();
    assert_eq!(web.ask("drover.internal"), ["127.0.0.11"]);
    let page = |path: &str| web.get(path);
    assert!(
        page("/self/name").ends_with("\r\n\r\nweb\n"),
        "{}",
        page("/self/name")
    );
    assert!(page("/containers.json").contains("10.64.1.2"));
    assert!(page("/nothing").starts_with("HTTP/1.1 404"));
}
