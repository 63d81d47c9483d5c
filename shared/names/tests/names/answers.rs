//! What is answered: names, precedence, health, hosts, kinds of record.

use std::collections::BTreeSet;

use drover_control_api::names::{Lookup, LookupOutcome};
use drover_control_api::registry::{ContainerState, Health, RegistryEvent};
use drover_names::{Outcome, View};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use crate::world::{With, ask, container, data, directory, host, id, network, told, view};

fn addresses(texts: &[&str]) -> Option<Vec<String>> {
    Some(texts.iter().map(|&text| text.to_owned()).collect())
}

#[test]
fn a_container_is_found_by_all_of_its_names() {
    let web = container(1, "shop-web-1", "b")
        .service("shop", "web")
        .alias("frontend")
        .alias("API.example.com");
    let directory = directory([web]);
    for name in [
        "shop-web-1",
        "SHOP-web-1",
        "web",
        "frontend",
        "api.example.com",
        "000000000001",
        "web.app",
        "shop-web-1.app",
        "000000000001.APP",
    ] {
        assert_eq!(told(&directory, name), addresses(&["10.64.0.1"]), "{name}");
    }
    for name in ["app", "web.other", "web.app.app", "wen", "example.com", "1"] {
        assert_eq!(told(&directory, name), None, "{name}");
    }
}

#[test]
fn a_service_is_all_of_its_containers_the_same_host_first() {
    let replicas = (1..=40).map(|number| {
        let host = if number % 4 == 0 { "a" } else { "b" };
        container(number, &format!("web-{number}"), host).service("shop", "web")
    });
    let directory = directory(replicas);
    let mut orders = BTreeSet::new();
    for seed in 0..20 {
        let question = crate::world::question("web", RecordType::A, None);
        let reply = drover_names::answer(
            &directory,
            &view(),
            &question,
            drover_names::Transport::Tcp,
            seed,
        );
        let drover_names::Reply::Answer(answer) = reply else {
            panic!("{reply:?}");
        };
        let message = hickory_proto::op::Message::from_vec(&answer.bytes).unwrap();
        let data = data(&message);
        assert_eq!(data.iter().collect::<BTreeSet<_>>().len(), 40);
        let near =
            |text: &String| text.rsplit('.').next().unwrap().parse::<u32>().unwrap() % 4 == 0;
        assert!(data[..10].iter().all(near), "{data:?}");
        assert!(
            message
                .answers
                .iter()
                .all(|record| (1..=5).contains(&record.ttl))
        );
        orders.insert(data);
    }
    assert!(orders.len() > 15, "every answer has an order of its own");
}

#[test]
fn names_of_a_network_are_only_visible_on_it() {
    let both = View {
        container: None,
        networks: vec![network("other"), network("app")],
    };
    let directory = directory([
        container(1, "web", "a"),
        container(2, "secret", "a").on("other"),
        container(3, "web", "b").on("other"),
    ]);
    assert_eq!(told(&directory, "secret"), None);
    assert_eq!(told(&directory, "secret.other"), None);
    assert_eq!(told(&directory, "web"), addresses(&["10.64.0.1"]));
    let asked = |name| data(&ask(&directory, &both, name, RecordType::A).unwrap().1);
    assert_eq!(asked("web"), ["10.64.0.3"], "the network that is first");
    assert_eq!(asked("web.app"), ["10.64.0.1"]);
    assert_eq!(asked("secret"), ["10.64.0.2"]);
}

#[test]
fn an_alias_takes_no_name_away() {
    let db = container(1, "db", "a");
    let thief = container(2, "thief", "b")
        .alias("db")
        .alias("000000000001")
        .alias("db.app")
        .alias("shared");
    let other = container(3, "other", "c").alias("shared");
    let known = directory([db.clone(), thief.clone(), other.clone()]);
    for name in ["db", "000000000001", "db.app"] {
        assert_eq!(told(&known, name), addresses(&["10.64.0.1"]), "{name}");
    }
    assert_eq!(
        told(&known, "shared"),
        addresses(&["10.64.0.2", "10.64.0.3"])
    );
    let refused = known.refused();
    let named: BTreeSet<_> = refused.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(named, BTreeSet::from(["000000000001", "db"]));
    assert!(
        refused.iter().all(|it| it.container == "thief"),
        "{refused:?}"
    );
    assert!(refused[0].reason.contains("`db` on a"), "{refused:?}");
    // One that does not run keeps nothing from anybody.
    let stopped = directory([db.state(ContainerState::Exited), thief, other]);
    assert_eq!(told(&stopped, "db"), addresses(&["10.64.0.2"]));
}

#[test]
fn a_service_shares_with_a_container_of_its_own_that_is_called_so() {
    let directory = directory([
        container(1, "web", "a").service("shop", "web"),
        container(2, "shop-web-1", "b").service("shop", "web"),
        container(3, "blog-web-1", "b").service("blog", "web"),
    ]);
    assert_eq!(
        told(&directory, "web"),
        addresses(&["10.64.0.1", "10.64.0.2"])
    );
}

#[test]
fn what_is_no_name_is_not_given_and_said() {
    let long = "x".repeat(64);
    let odd = container(1, "odd", "a")
        .alias("with space")
        .alias("bell\u{7}")
        .alias("..")
        .alias(&long);
    let directory = directory([odd]);
    let refused = directory.refused();
    let reasons: Vec<_> = refused
        .iter()
        .map(|it| (it.name.as_str(), it.reason.as_str()))
        .collect();
    assert_eq!(reasons.len(), 4, "{reasons:?}");
    assert!(
        reasons.iter().any(|(name, _)| *name == "bell?"),
        "{reasons:?}"
    );
    assert_eq!(told(&directory, "odd"), addresses(&["10.64.0.1"]));
}

#[test]
fn only_the_well_are_handed_out_and_in_a_storm_those_that_run() {
    let web = |number, health| {
        container(number, &format!("web-{number}"), "b")
            .service("shop", "web")
            .health(health)
    };
    let (well, ill, new) = (Health::Healthy, Health::Unhealthy, Health::Starting);
    let plain = container(4, "web-4", "b").service("shop", "web");
    let table: &[(Vec<_>, Option<Vec<String>>)] = &[
        (
            vec![web(1, well), web(2, ill), web(3, new)],
            addresses(&["10.64.0.1"]),
        ),
        (vec![plain.clone(), web(2, ill)], addresses(&["10.64.0.4"])),
        (
            vec![web(1, ill), web(2, ill), web(3, new)],
            addresses(&["10.64.0.1", "10.64.0.2"]),
        ),
        (
            vec![plain.clone().state(ContainerState::Paused), web(1, well)],
            addresses(&["10.64.0.1"]),
        ),
        (
            vec![plain.clone().state(ContainerState::Paused)],
            addresses(&["10.64.0.4"]),
        ),
        (vec![web(3, new)], addresses(&[])),
        (vec![plain.clone().state(ContainerState::Restarting)], None),
        (vec![plain.state(ContainerState::Exited)], None),
    ];
    for (containers, expected) in table {
        let directory = directory(containers.clone());
        assert_eq!(&told(&directory, "web"), expected, "{containers:?}");
    }
}

#[test]
fn a_container_always_finds_itself() {
    let web = |number, health| {
        container(number, &format!("web-{number}"), "a")
            .service("shop", "web")
            .health(health)
    };
    let asker = |number| View {
        container: Some(id(number)),
        networks: vec![network("app")],
    };
    let directory = directory([
        web(1, Health::Starting),
        web(2, Health::Unhealthy),
        web(3, Health::Healthy),
    ]);
    let asked = |number, name| {
        let (_, message) = ask(&directory, &asker(number), name, RecordType::A).unwrap();
        data(&message).into_iter().collect::<BTreeSet<_>>()
    };
    let expected = |texts: &[&str]| {
        texts
            .iter()
            .map(|&it| it.to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(asked(1, "web-1"), expected(&["10.64.0.1"]));
    assert_eq!(asked(1, "web"), expected(&["10.64.0.1", "10.64.0.3"]));
    assert_eq!(asked(2, "web"), expected(&["10.64.0.2", "10.64.0.3"]));
    assert_eq!(asked(3, "web"), expected(&["10.64.0.3"]));
    assert_eq!(
        asked(3, "web-1"),
        expected(&[]),
        "not healthy yet, and somebody else asks"
    );
    assert_eq!(
        asked(3, "web-2"),
        expected(&["10.64.0.2"]),
        "nobody is well who is called so"
    );
}

#[test]
fn containers_of_hosts_that_are_not_alive_do_not_count() {
    let web = |number, host| container(number, &format!("web-{number}"), host).service("s", "web");
    let mut directory = directory([web(1, "a"), web(2, "b"), web(3, "nobody-knows")]);
    assert_eq!(
        told(&directory, "web"),
        addresses(&["10.64.0.1", "10.64.0.2"])
    );
    directory.apply(host("b", false));
    assert_eq!(told(&directory, "web"), addresses(&["10.64.0.1"]));
    assert_eq!(told(&directory, "web-2"), None);
    directory.apply(host("b", true));
    assert_eq!(told(&directory, "web-2"), addresses(&["10.64.0.2"]));
    // Removed, and joined again: the records of its former self are void.
    directory.apply(RegistryEvent::Host {
        name: "b".parse().unwrap(),
        member: "another".to_owned(),
        alive: true,
    });
    assert_eq!(told(&directory, "web-2"), None);
    directory.apply(RegistryEvent::HostGone {
        name: "b".parse().unwrap(),
    });
    assert_eq!(directory.size().1, 2);
}

#[test]
fn kinds_of_record() {
    let web = container(1, "web", "b")
        .address("fd00::1")
        .port(80, "tcp")
        .port(53, "udp");
    let plain = container(2, "plain", "b");
    let directory = directory([web, plain]);
    let asked = |name: &str, kind| {
        let (answer, message) = ask(&directory, &view(), name, kind).unwrap();
        (
            answer.outcome,
            message.metadata.response_code,
            data(&message),
        )
    };
    let records = |texts: &[&str]| {
        let texts = texts.iter().map(|&it| it.to_owned()).collect();
        (Outcome::Records, ResponseCode::NoError, texts)
    };
    let no_data = (Outcome::NoData, ResponseCode::NoError, Vec::new());
    let arpa = "1.0.64.10.in-addr.arpa";
    let arpa6 = format!("1.{}0.0.d.f.ip6.arpa", "0.".repeat(27));
    assert_eq!(asked("web", RecordType::A), records(&["10.64.0.1"]));
    assert_eq!(asked("web", RecordType::AAAA), records(&["fd00::1"]));
    assert_eq!(
        asked("web", RecordType::ANY),
        records(&["10.64.0.1", "fd00::1"])
    );
    assert_eq!(asked("plain", RecordType::AAAA), no_data);
    assert_eq!(asked("web", RecordType::MX), no_data);
    assert_eq!(asked("web", RecordType::HTTPS), no_data);
    assert_eq!(asked(arpa, RecordType::PTR), records(&["web.app."]));
    assert_eq!(asked(&arpa6, RecordType::PTR), records(&["web.app."]));
    let target = "000000000001.";
    assert_eq!(
        asked("_80._tcp.web", RecordType::SRV),
        records(&[&format!("0 0 80 {target}")])
    );
    assert_eq!(
        asked("_http._tcp.web.app", RecordType::SRV),
        records(&[&format!("0 0 80 {target}")])
    );
    assert_eq!(
        asked("_udp.web", RecordType::SRV),
        records(&[&format!("0 0 53 {target}")])
    );
    assert_eq!(asked("web", RecordType::SRV).2.len(), 2);
    assert_eq!(
        asked("_81._tcp.web", RecordType::SRV).0,
        Outcome::NoSuchName
    );
    assert_eq!(
        asked("_81._tcp.web", RecordType::SRV).1,
        ResponseCode::NXDomain
    );
    let (_, message) = ask(&directory, &view(), "_80._tcp.web", RecordType::SRV).unwrap();
    assert_eq!(message.additionals.len(), 2, "and where that is");
    for (name, kind) in [
        ("9.9.64.10.in-addr.arpa", RecordType::PTR),
        ("64.10.in-addr.arpa", RecordType::PTR),
        ("web", RecordType::PTR),
        ("_80._tcp.nobody", RecordType::SRV),
        ("nobody", RecordType::ANY),
    ] {
        assert!(
            ask(&directory, &view(), name, kind).is_none(),
            "{name} {kind}"
        );
    }
}

#[test]
fn what_may_be_out_of_date_is_served_and_marked() {
    let mut directory = directory([container(1, "web", "b")]);
    assert_eq!(directory.stale_since(), None);
    directory.apply(RegistryEvent::Stale { since: 20 });
    directory.set_cut(Some(10));
    assert_eq!(directory.stale_since(), Some(10));
    let (answer, _) = ask(&directory, &view(), "web", RecordType::A).unwrap();
    assert!(answer.stale);
    // Half of a new stream changes nothing.
    directory.apply(RegistryEvent::Reset {
        this_host: "a".parse().unwrap(),
    });
    assert_eq!(told(&directory, "web"), addresses(&["10.64.0.1"]));
    assert_eq!(directory.stale_since(), Some(10));
    directory.apply(RegistryEvent::Synced);
    assert_eq!(
        (told(&directory, "web"), directory.stale_since()),
        (None, None)
    );
}

#[test]
fn what_is_known_can_be_told_again() {
    let first = directory([
        container(1, "web", "b").alias("x"),
        container(2, "db", "c").health(Health::Starting),
    ]);
    let mut second = drover_names::Directory::default();
    first.events().for_each(|event| second.apply(event));
    assert_eq!(second.table(None), first.table(None));
    assert_eq!(second.this_host(), first.this_host());
    assert!(second.is_complete());
}

#[test]
fn a_lookup_says_why() {
    let directory = directory([
        container(1, "web-1", "a")
            .service("s", "web")
            .health(Health::Unhealthy),
        container(2, "web-2", "b")
            .service("s", "web")
            .health(Health::Healthy),
        container(3, "db", "b").state(ContainerState::Exited),
        container(4, "thief", "b").alias("web-2"),
    ]);
    let lookup = |name: &str, from: Option<&str>| Lookup {
        name: name.to_owned(),
        kind: None,
        network: Some("app".to_owned()),
        from: from.map(str::to_owned),
    };
    let found = directory.explain(&lookup("WEB.", None)).unwrap();
    assert_eq!(found.outcome, LookupOutcome::Answered);
    assert_eq!(found.records[0].data, "10.64.0.2");
    let reasons: Vec<_> = found
        .holders
        .iter()
        .map(|it| (it.given, it.reason.as_str()))
        .collect();
    assert_eq!(reasons, [(false, "unhealthy"), (true, "healthy")]);
    assert_eq!(
        directory
            .explain(&lookup("web", Some("web-1")))
            .unwrap()
            .records
            .len(),
        2
    );
    let stopped = directory.explain(&lookup("db", None)).unwrap();
    assert_eq!(stopped.outcome, LookupOutcome::PassedOn);
    assert_eq!(stopped.holders[0].reason, "not running");
    let taken = directory.explain(&lookup("web-2", None)).unwrap();
    assert!(
        taken
            .holders
            .iter()
            .any(|it| !it.given && it.reason.contains("comes first"))
    );
    let reverse = directory.explain(&lookup("10.64.0.2", None)).unwrap();
    assert_eq!(reverse.records[0].data, "web-2.app.");
    assert!(directory.explain(&lookup("a b", None)).is_err());
    assert!(directory.explain(&lookup("web", Some("nobody"))).is_err());
    assert!(directory.table(Some("nowhere")).is_err());
}

#[test]
fn a_container_reads_about_itself_and_its_own_networks() {
    use drover_names::{Page, page};

    let directory = directory([
        container(1, "shop-web-1", "a").service("shop", "web"),
        container(2, "shop-web-2", "b")
            .service("shop", "web")
            .health(Health::Unhealthy),
        container(3, "secret", "b").on("other"),
    ]);
    let asker = View {
        container: Some(id(1)),
        networks: vec![network("app")],
    };
    let text = |path: &str| match page(&directory, &asker, path) {
        Some(Page::Text(text)) => text,
        other => panic!("{path}: {other:?}"),
    };
    assert_eq!(text("/"), "containers\nhosts\nself\nservices\n");
    assert_eq!(text("/self/name"), "shop-web-1\n");
    assert_eq!(text("/self/networks/app/addresses"), "10.64.0.1\n");
    assert_eq!(text("/services/"), "web\n");
    assert_eq!(text("/services/web"), "0\n1\n");
    assert_eq!(text("/services/web/1/state"), "unhealthy\n");
    assert_eq!(text("/containers"), "shop-web-1\nshop-web-2\n");
    assert_eq!(
        text("/hosts/b/containers"),
        "shop-web-2\n",
        "own networks only"
    );
    assert!(page(&directory, &asker, "/containers/secret").is_none());
    let Some(Page::Json(value)) = page(&directory, &asker, "/services.json") else {
        panic!("no JSON");
    };
    assert_eq!(value["web"][0]["addresses"][0], "10.64.0.1");
    let nobody = View::default();
    assert_eq!(
        page(&directory, &nobody, "/self"),
        Some(Page::Text(String::new()))
    );
    let address = |name, kind| ask(&directory, &nobody, name, kind).map(|(_, it)| data(&it));
    assert_eq!(
        address("drover.internal", RecordType::A),
        addresses(&["127.0.0.11"])
    );
    assert_eq!(address("drover.internal", RecordType::AAAA), addresses(&[]));
    assert_eq!(address("notdrover.internal", RecordType::A), None);
}
