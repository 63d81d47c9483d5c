//! The checks over made-up facts: a clean host, and one fault at a time.

use std::collections::BTreeSet;

use drover_control_api::coordinator::{Examination, StatusAnswer};
use drover_control_api::names::NameReport;
use drover_control_api::plugin::{EndpointTable, Identity, LeaseTable, PathTable};
use drover_daemon::VERSION;

use super::boot::Supervision;
use super::facts::{AuthorizationFact, Facts, ProcessFact};
use super::kernel::{Feature, KernelFacts};
use super::overlay::OverlayFacts;
use super::port::{PortFact, PortState};
use super::socket::SocketState;
use super::*;
use crate::process::Process;
use crate::view::golden::assert_golden;

fn answer<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A host of a cluster of two with everything as it should be.
fn clean() -> Facts {
    let mut status: StatusAnswer =
        serde_json::from_str(include_str!("../../tests/answers/status.json")).unwrap();
    status.hosts.retain(|host| host.alive);
    status.identity.version = VERSION.to_owned();
    for host in &mut status.hosts {
        host.host.software = VERSION.to_owned();
    }
    let mut paths: PathTable =
        serde_json::from_str(include_str!("../../tests/answers/paths.json")).unwrap();
    paths.paths.truncate(1);
    let encryption = paths.paths[0].encryption.as_mut();
    encryption.unwrap().degraded = None;
    let endpoint = "a".repeat(64);
    let endpoints: EndpointTable = answer(serde_json::json!({
        "networks": [{"network": "b".repeat(64), "pools": ["10.64.0.0/16"], "bridge": "br-bbbbbbbbbbbb", "mtu": 1500}],
        "endpoints": [{"endpoint": endpoint, "network": "b".repeat(64), "addresses": ["10.64.0.2/24"],
            "mac": "02:42:0a:40:00:02", "sandbox": "/var/run/docker/netns/0123456789ab", "present": true}],
    }));
    let leases: LeaseTable = answer(serde_json::json!({
        "pools": [{"pool": "10.64.0.0/16", "blocks": [], "quarantined": [],
            "leases": [{"address": "10.64.0.2", "mac": null, "given_at": 1000}]}],
    }));
    Facts {
        processes: Process::ALL.map(process).into(),
        supervision: Supervision::Service {
            unit: "drover.service".to_owned(),
            at_boot: true,
        },
        dead_sockets: Vec::new(),
        engine_address: "unix:///var/run/docker.sock".to_owned(),
        engine: Ok("28.5.2".to_owned()),
        authorization: AuthorizationFact {
            is_set_up: false,
            engine_is_told: false,
            state: SocketState::Missing,
        },
        kernel: Ok(KernelFacts {
            features: vec![(Feature::Bridge, Ok(())), (Feature::NftNetdev, Ok(()))],
        }),
        overlay: Ok(OverlayFacts {
            forwards_v4: true,
            forwards_v6: Some(true),
            filters_bridged: true,
            foreign_filters: Vec::new(),
        }),
        has_etcd_program: true,
        status: Some(status),
        ports: vec![port(PortState::Open)],
        paths: Some(paths),
        endpoints: Some(endpoints),
        engine_endpoints: Some(BTreeSet::from([endpoint])),
        leases: Some(leases),
        names: Some(NameReport::default()),
        examination: Some(Examination::default()),
        vxlan_port: 4787,
        now: 100_000,
    }
}

fn process(process: Process) -> ProcessFact {
    ProcessFact {
        process,
        socket: format!("/run/{}.sock", process.name()).into(),
        state: SocketState::Listening,
        identity: Ok(Identity {
            process: process.name().to_owned(),
            version: VERSION.to_owned(),
            pid: 7,
            complaints: Vec::new(),
        }),
    }
}

fn port(state: PortState) -> PortFact {
    PortFact {
        host: "web-2".to_owned(),
        address: "192.0.2.2:4748".to_owned(),
        purpose: "joining",
        state,
    }
}

/// The one finding there is when `change` is the only fault.
fn found(change: impl FnOnce(&mut Facts)) -> (Severity, String, String) {
    let mut facts = clean();
    change(&mut facts);
    let report = report(&facts);
    let [finding] = report.findings.as_slice() else {
        panic!("not one finding: {:?}", report.findings);
    };
    (
        finding.severity,
        finding.problem.clone(),
        finding.remedy.clone(),
    )
}

fn status(facts: &mut Facts) -> &mut StatusAnswer {
    facts.status.as_mut().unwrap()
}

#[test]
fn a_clean_host_has_no_faults_and_says_what_was_checked() {
    let report = report(&clean());
    assert_golden("doctor-clean", &report.render());
    assert!(!report.has_errors());
}

#[test]
fn processes_and_sockets() {
    let (_, problem, remedy) = found(|facts| {
        facts.processes[2].identity = Err("no".to_owned());
        facts.processes[2].state = SocketState::Dead;
        facts.dead_sockets = vec!["/run/drover-net.sock".into()];
    });
    assert!(problem.contains("`drover-net` does not run") && remedy.contains("drover up"));
    let (severity, problem, remedy) =
        found(|facts| facts.dead_sockets = vec!["/run/x.sock".into()]);
    assert!(problem.contains("`/run/x.sock`") && remedy.contains("rm /run/x.sock"));
    assert_eq!(severity, Severity::Error);
    let (severity, problem, _) = found(|facts| {
        facts.processes[1]
            .identity
            .as_mut()
            .unwrap()
            .complaints
            .push("no block left".to_owned());
    });
    assert!(problem.contains("`drover-ipam`: no block left"));
    assert_eq!(severity, Severity::Warning);
    let (_, problem, remedy) = found(|facts| {
        facts.engine = Err("connection refused".to_owned());
        facts.examination = None;
    });
    assert!(problem.contains("unix:///var/run/docker.sock") && remedy.contains("start Docker"));
}

#[test]
fn what_is_gone_after_a_reboot() {
    let (severity, problem, remedy) = found(|facts| {
        facts.supervision = Supervision::Service {
            unit: "my-drover.service".to_owned(),
            at_boot: false,
        };
    });
    assert_eq!(severity, Severity::Warning);
    assert!(problem.contains("`my-drover.service`") && problem.contains("not started at boot"));
    assert_eq!(remedy, "systemctl enable my-drover.service");
    let (_, problem, remedy) =
        found(|facts| facts.supervision = Supervision::Session("session-3.scope".to_owned()));
    assert!(problem.contains("`session-3.scope`") && remedy.contains("install the package"));
}

#[test]
fn kernel_and_forwarding() {
    let missing = |reason: &str| {
        let features = vec![(Feature::NftNetdev, Err(reason.to_owned()))];
        found(|facts| facts.kernel = Ok(KernelFacts { features }))
    };
    let (_, problem, remedy) = missing("Operation not supported");
    assert!(problem.contains("netdev") && remedy.contains("modprobe -a nf_tables nft_fwd_netdev"));
    assert!(
        missing("the program `nft` cannot be run")
            .2
            .contains("apt install nftables")
    );
    let (_, problem, remedy) = found(|facts| {
        facts.overlay.as_mut().unwrap().foreign_filters = vec!["ip filter".to_owned()];
    });
    assert!(problem.contains("`ip filter`") && problem.contains("br_netfilter"));
    assert!(remedy.contains("delete table ip filter"));
    let (_, problem, _) = found(|facts| facts.overlay.as_mut().unwrap().forwards_v4 = false);
    assert!(problem.contains("does not forward"));
}

#[test]
fn the_cluster() {
    let (_, problem, remedy) =
        found(|facts| status(facts).hosts[1].host.software = "9.9.9".to_owned());
    assert!(problem.contains("`web-2` runs version 9.9.9") && remedy.contains("same version"));
    let (_, problem, remedy) = found(|facts| facts.has_etcd_program = false);
    assert!(problem.contains("`etcd`") && remedy.contains("apt install etcd-server"));
}

#[test]
fn ports() {
    let (_, problem, remedy) = found(|facts| facts.ports = vec![port(PortState::Refused)]);
    assert!(problem.contains("nobody listens at 192.0.2.2:4748") && remedy.contains("drover up"));
    let blocked = PortState::Blocked("no answer within 2 s".to_owned());
    let (_, problem, remedy) = found(|facts| facts.ports = vec![port(blocked)]);
    assert!(problem.contains("no answer") && remedy.contains("firewalls"));
}

#[test]
fn mtu_and_paths() {
    let (_, problem, remedy) = found(|facts| {
        status(facts).hosts[1].host.underlay_mtu = drover_model::Mtu::new(9000).unwrap();
    });
    assert!(problem.contains("1500 and 9000") && remedy.contains("mtu"));
    let (_, problem, remedy) = found(|facts| {
        facts.endpoints.as_mut().unwrap().networks[0].mtu = drover_model::Mtu::new(1501).unwrap();
    });
    assert!(problem.contains("bbbbbbbbbbbb has MTU 1501") && remedy.contains("mtu=1500"));
    let (_, problem, _) = found(|facts| facts.paths.as_mut().unwrap().paths.clear());
    assert!(problem.contains("no path to host `web-2`"));
    let silent = |encapsulation| {
        found(move |facts| {
            let path = &mut facts.paths.as_mut().unwrap().paths[0];
            path.encapsulation = encapsulation;
            path.packets.received = 0;
        })
    };
    assert!(
        silent(drover_model::Encapsulation::Vxlan)
            .2
            .contains("UDP port 4787")
    );
    assert!(
        silent(drover_model::Encapsulation::Direct)
            .2
            .contains("overlay.encapsulation")
    );
    let (_, problem, remedy) = found(|facts| {
        let path = &mut facts.paths.as_mut().unwrap().paths[0];
        path.encryption.as_mut().unwrap().degraded = Some("it does not answer".to_owned());
    });
    assert!(problem.contains("web-2") && problem.contains("it does not answer"));
    assert!(remedy.contains("udp 4740-4741") && remedy.contains("protocol 50"));
}

#[test]
fn endpoints_and_leases() {
    let (_, problem, _) =
        found(|facts| facts.endpoints.as_mut().unwrap().endpoints[0].present = false);
    assert!(problem.contains("aaaaaaaaaaaa") && problem.contains("no port in the kernel"));
    let (_, problem, _) = found(|facts| facts.engine_endpoints = Some(BTreeSet::new()));
    assert!(problem.contains("aaaaaaaaaaaa") && problem.contains("stale"));
    let leak = |facts: &mut Facts| {
        facts.examination = None;
        facts.leases.as_mut().unwrap().pools[0].leases[0].address = "10.64.0.9".parse().unwrap();
    };
    let (severity, problem, _) = found(leak);
    assert!(problem.contains("10.64.0.9") && problem.contains("leaked"));
    assert_eq!(severity, Severity::Warning);
    let mut young = clean();
    leak(&mut young);
    young.now = 1001;
    assert!(
        report(&young).findings.is_empty(),
        "a container may be starting"
    );
}

#[test]
fn what_cannot_be_learned_is_said_and_is_no_fault() {
    let mut facts = clean();
    facts.status = None;
    facts.paths = None;
    facts.endpoints = None;
    facts.names = None;
    facts.examination = None;
    facts.kernel = Err("cannot make a network namespace: run this as root".to_owned());
    let report = report(&facts);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_golden("doctor-blind", &report.render());
}

#[test]
fn what_the_coordinator_judges_is_not_judged_here_too() {
    let mut facts = clean();
    facts.engine = Err("connection refused".to_owned());
    facts.leases.as_mut().unwrap().pools[0].leases[0].address = "10.64.0.9".parse().unwrap();
    assert!(report(&facts).findings.is_empty());
}

#[test]
fn what_the_coordinator_found_is_not_said_twice() {
    let (_, problem, _) = found(|facts| {
        let finding = Finding {
            severity: Severity::Warning,
            problem: "two networks have one name".to_owned(),
            remedy: "remove one".to_owned(),
        };
        facts.examination.as_mut().unwrap().findings = vec![finding.clone(), finding];
    });
    assert_eq!(problem, "two networks have one name");
}

#[test]
fn names_that_are_stale_refused_or_not_served() {
    let (severity, problem, _) = found(|facts| {
        facts.names.as_mut().unwrap().stale_since = Some(facts.now - 90);
    });
    assert_eq!(severity, Severity::Warning);
    assert!(problem.contains("90 seconds ago"), "{problem}");
    let sandbox = serde_json::json!({"sandbox": "/run/docker/netns/1", "container": null, "name": "web",
        "networks": ["app"], "since": 1, "delay": 1, "hook": "absent", "complaint": null,
        "counters": drover_control_api::names::NameCounters::default()});
    let (severity, problem, _) = found(|facts| {
        let names = facts.names.as_mut().unwrap();
        names.sandboxes.push(answer(sandbox));
    });
    assert_eq!(severity, Severity::Error);
    assert!(problem.contains("`web`"), "{problem}");
    let refused = serde_json::json!({"name": "a b", "network": "app", "container": "web", "host": "h",
        "reason": "it has a space"});
    let (severity, problem, _) = found(|facts| {
        facts.names.as_mut().unwrap().refused.push(answer(refused));
    });
    assert_eq!(severity, Severity::Warning);
    assert!(
        problem.contains("`a b`") && problem.contains("a space"),
        "{problem}"
    );
}

#[test]
fn an_engine_whose_plugin_is_not_there_is_told_of() {
    let mut facts = clean();
    facts.authorization.is_set_up = true;
    facts.authorization.engine_is_told = true;
    let report = report(&facts);
    let problems: Vec<&str> = report
        .findings
        .iter()
        .map(|finding| finding.problem.as_str())
        .collect();
    assert!(problems[0].contains("denies every call"), "{problems:?}");
    assert!(problems[1].contains("CVE-2026-34040"), "{problems:?}");
    facts.authorization.state = SocketState::Listening;
    facts.engine = Ok("29.3.1".to_owned());
    assert!(super::report(&facts).findings.is_empty());
}
