//! A socket per role, in front of real engines: who comes by it does what the role may, sees what it may see, and streams as before.
//!
//! What is denied must not have happened: that is looked at on the engine, not in the answer.

use anyhow::{Context as _, Result, ensure};
use integration_tests::engine::Release;
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

use crate::authorization::containers;
use crate::authorization_bypasses::{BODIES, PLAIN, TO_THE_HOST, URIS};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "authorization_sockets_of_roles_show_and_let_do_what_the_role_may",
    setup: Setup::Engines(1),
    needs: &[],
    run: sockets,
}];

/// The engine's flags: it asks the plugin, too.
const FLAGS: &str = "--authorization-plugin=drover-authz";
/// The sockets, as they are made: the folder, and the flags.
const SOCKETS: &[(&str, &str)] = &[
    ("traefik", "--role traefik-reader --group 1234"),
    (
        "ann",
        "--role developer --user ann --owner 4321 --mode 0600",
    ),
    ("ci", "--role ci-runner"),
    ("reader", "--role reader"),
];

fn socket(name: &str) -> String {
    format!("/run/drover-sockets/{name}/docker.sock")
}

/// A command of somebody who has a role's socket alone.
fn by(name: &str, command: &str) -> String {
    format!(
        "DOCKER_HOST=unix://{} DOCKER_BUILDKIT=0 {command}",
        socket(name)
    )
}

fn sockets(lab: &mut Lab) -> Result<()> {
    let host = lab.host(0)?;
    host.drover_up("")?;
    // The policy folder is made with the first socket, and the plugin runs where there is one.
    let said = host.run(&format!(
        "drover authz socket --role reader {}",
        socket("reader")
    ))?;
    ensure!(said.contains("drover up"), "{said}");
    host.drover_down()?;
    host.drover_up("")?;
    host.stop_engine("TERM")?;
    host.start_engine(FLAGS)?;
    for (name, flags) in SOCKETS {
        host.run(&format!("drover authz socket {flags} {}", socket(name)))?;
    }
    files(host)?;
    host.run("docker run -d --name secret -e PASSWORD=hunter2 lab sleep 600")?;
    host.run("docker run -d --name web --label traefik.enable=true lab sleep 600")?;
    host.run(
        "docker run -d --name his --label io.drover.owner=bob -v his-volume:/data lab sleep 600",
    )?;
    lists(host)?;
    streams(host)?;
    builds(host)?;
    bypasses(host, "with")?;
    faults(host)?;
    // The same without the plugin in the engine: the socket alone decides.
    stop_with_containers(host)?;
    host.start_engine("")?;
    host.run("docker start secret web his")?;
    host.run(&by("ann", "docker start anns"))?;
    let said = host.run(&by("ann", "echo hello | docker exec -i anns cat"))?;
    ensure!(said == "hello", "{said}");
    host.refused(&by("ann", "docker exec secret true"))?;
    bypasses(host, "without")?;
    removal(host)
}

/// Owners, groups and modes.
fn files(host: &Host) -> Result<()> {
    for (name, expected) in [
        ("traefik", "0 1234 660"),
        ("ann", "4321 0 600"),
        ("ci", "0 0 600"),
    ] {
        let said = host.run(&format!("stat -c '%u %g %a' {}", socket(name)))?;
        ensure!(said == expected, "{name}: {said}");
    }
    let said = host.refused("drover authz socket --role traefic /run/drover-sockets/x")?;
    ensure!(said.contains("traefik-reader"), "{said}");
    let said = host.run("drover authz sockets")?;
    ensure!(
        said.lines().count() == 5 && said.matches("yes").count() == 4,
        "{said}"
    );
    Ok(())
}

/// Lists and events show what the role may see.
fn lists(host: &mut Host) -> Result<()> {
    let names = "docker ps -a --format '{{.Names}}'";
    for role in ["ann", "traefik"] {
        let follow = "timeout 120 docker events --since 10m --format '{{.Type}} {{.Action}} {{.Actor.Attributes.name}}'";
        host.start(&by(role, follow), &format!("events-{role}"))?;
    }
    host.run(&by(
        "ann",
        "docker run -d --name anns -v anns-volume:/data lab sleep 600",
    ))?;
    host.run(&by("ann", "docker network create anns-network"))?;
    for (name, expected) in [
        ("traefik", "web"),
        ("ann", "anns"),
        ("ci", ""),
        ("reader", "anns his secret web"),
    ] {
        let said = host.run(&by(name, names))?;
        let mut said: Vec<&str> = said.lines().collect();
        said.sort_unstable();
        ensure!(said.join(" ") == expected, "{name}: {said:?}");
    }
    what_ann_sees(host)?;
    what_is_not_shown_is_not_reached(host)?;
    events(host)
}

/// Lists of what is not a container, and what tells of containers within them.
fn what_ann_sees(host: &Host) -> Result<()> {
    let said = host.run(&by("ann", "docker volume ls -q"))?;
    ensure!(said == "anns-volume", "{said}");
    let said = host.run(&by("ann", "docker network ls --format '{{.Name}}'"))?;
    let mut said: Vec<&str> = said.lines().collect();
    said.sort_unstable();
    ensure!(said == ["anns-network", "bridge"], "{said:?}");
    // A network that is lent to everybody does not tell who else is on it.
    let said = host.run(&by(
        "ann",
        "docker network inspect bridge -f '{{range .Containers}}{{.Name}} {{end}}'",
    ))?;
    ensure!(said.trim() == "anns", "{said}");
    let said = host.run(&by("ann", "docker system df -v"))?;
    ensure!(
        said.contains("anns") && !said.contains("secret") && !said.contains("his-volume"),
        "{said}"
    );
    Ok(())
}

fn what_is_not_shown_is_not_reached(host: &Host) -> Result<()> {
    host.run(&by("traefik", "docker inspect web"))?;
    for command in [
        "docker inspect --type container secret",
        "docker volume ls",
        "docker images",
        "docker exec web true",
        "docker run -d --name evil-t lab true",
        "docker logs web",
        "docker stop web",
    ] {
        host.refused(&by("traefik", command))
            .with_context(|| format!("traefik: {command}"))?;
    }
    for command in [
        "docker exec secret true",
        "docker logs his",
        "docker inspect --type container his",
        "docker kill web",
        "docker cp his:/etc/passwd /tmp/stolen",
        "docker volume rm his-volume",
        "docker attach his",
    ] {
        let said = host
            .refused(&by("ann", command))
            .with_context(|| format!("ann: {command}"))?;
        ensure!(said.contains("drover: "), "ann: {command}: {said}");
    }
    Ok(())
}

/// Streams of events tell of what may be inspected, and of nothing else.
fn events(host: &Host) -> Result<()> {
    host.run(&by("ann", "docker run --rm --name short lab true"))?;
    host.run("docker run --rm --name others lab true")?;
    host.run("docker restart -t 0 web")?;
    wait::until("events", wait::seconds(20), || {
        let (ann, traefik) = (
            host.tail("events-ann", 200),
            host.tail("events-traefik", 200),
        );
        ensure!(
            ann.contains("container create anns") && ann.contains("container destroy short"),
            "ann: {ann}"
        );
        ensure!(ann.contains("network create anns-network"), "ann: {ann}");
        ensure!(
            !ann.contains("others") && !ann.contains(" web"),
            "ann: {ann}"
        );
        ensure!(
            traefik.contains("container restart web"),
            "traefik: {traefik}"
        );
        ensure!(
            !traefik.contains("anns") && !traefik.contains("others"),
            "traefik: {traefik}"
        );
        Ok(())
    })?;
    Ok(())
}

/// What goes in and out of containers, at once and as it was.
fn streams(host: &Host) -> Result<()> {
    let ann = |command: &str| by("ann", command);
    let is = |command: &str, expected: &str| -> Result<()> {
        let said = host
            .run(&ann(command))
            .with_context(|| command.to_owned())?;
        ensure!(said.trim() == expected, "{command}: {said}");
        Ok(())
    };
    is("echo hello | docker exec -i anns cat", "hello")?;
    // The end of what goes in is passed on, and what comes out comes whole.
    is(
        "echo hello | docker run -i --rm lab sh -c 'cat; echo end'",
        "hello\nend",
    )?;
    is(
        "head -c 50000000 /dev/zero | docker exec -i anns cat | wc -c",
        "50000000",
    )?;
    is("docker exec anns sh -c 'exit 7' || echo $?", "7")?;
    let said = host.run(&by(
        "ann",
        "script -qec 'docker exec -it anns tty' /dev/null",
    ))?;
    ensure!(said.contains("/dev/pts/"), "{said}");
    // Attached, and detached by the client's end.
    is(
        "docker run --name logs lab sh -c 'echo one; echo two >&2; echo three' 2>/dev/null",
        "one\nthree",
    )?;
    is(
        "docker logs -f logs 2>&1 | sort | tr '\\n' ' '",
        "one three two",
    )?;
    host.run("head -c 30000000 /dev/urandom > /tmp/large-in")?;
    host.run(&by("ann", "docker cp /tmp/large-in anns:/large"))?;
    host.run(&by("ann", "docker cp anns:/large /tmp/large-out"))?;
    host.run("cmp /tmp/large-in /tmp/large-out")?;
    let said = host.run(&by("ann", "docker save lab | docker load"))?;
    ensure!(said.contains("Loaded image"), "{said}");
    // A stream comes as it is said, not when it has ended.
    let said = host.run(&ann(
        "timeout 3 docker run --rm --name slow lab sh -c 'echo now; sleep 5' || true",
    ))?;
    ensure!(said.contains("now"), "{said}");
    host.run("docker rm -f slow logs 2>/dev/null || true")?;
    Ok(())
}

/// A build, classic; and with BuildKit, which goes on in `/session` and `/grpc`.
fn builds(host: &Host) -> Result<()> {
    host.run("mkdir -p /tmp/build && head -c 20000000 /dev/urandom > /tmp/build/file && printf 'FROM scratch\\nCOPY file /file\\n' > /tmp/build/Dockerfile")?;
    host.run(&by("ann", "docker build -q -t anns-image /tmp/build"))?;
    let client = host.lend(&Release::client_with_buildkit())?;
    let build = |name: &str, image: &str| {
        let command = format!("DOCKER_BUILDKIT=1 {client} build -q -t {image} /tmp/build");
        by(name, &command)
    };
    host.run(&build("ci", "cis-image"))?;
    ensure!(
        !host.run("docker images -q cis-image")?.is_empty(),
        "not built"
    );
    host.refused(&build("ann", "evil-image"))?;
    ensure!(host.run("docker images -q evil-image")?.is_empty(), "built");
    for path in ["/session", "/grpc"] {
        let ask = |name: &str| {
            host.run(&format!(
                "{{ printf 'POST {path} HTTP/1.1\\r\\nHost: a\\r\\nConnection: Upgrade\\r\\nUpgrade: h2c\\r\\n\\r\\n'; sleep 1; }} \
                 | socat -t 1 - UNIX-CONNECT:{} | head -n 1 | cut -d' ' -f2",
                socket(name)
            ))
        };
        let (ci, ann) = (ask("ci")?, ask("ann")?);
        ensure!(ci == "101" && ann == "403", "{path}: ci {ci}, ann {ann}");
    }
    Ok(())
}

/// A call as it is written; the status.
fn call(host: &Host, line: &str, headers: &str, body: &str) -> Result<String> {
    let (method, uri) = line.split_once(' ').context("a method and a URI")?;
    host.run(&format!(
        "printf '%s' '{body}' | curl -s -m 60 -o /tmp/answer -w '%{{http_code}}' --path-as-is --unix-socket {} \
         -X {method} --request-target '{uri}' -H 'Content-Type: application/json' {headers} --data-binary @- http://localhost/",
        socket("ann")
    ))
}

/// The attempts that the plugin is tried with, and those that a proxy is.
fn bypasses(host: &Host, round: &str) -> Result<()> {
    for (number, flags) in TO_THE_HOST.iter().enumerate() {
        let command =
            format!("docker run -d --name evil-flag-{round}-{number} {flags} lab sleep 60");
        let said = host
            .refused(&by("ann", &command))
            .with_context(|| format!("ann: {flags}"))?;
        ensure!(
            said.contains("drover: "),
            "{flags}: refused by another: {said}"
        );
    }
    for (number, uri) in URIS.iter().enumerate() {
        let name = |begin: &str| {
            let uri = uri.replace("%4eAME", "NAME");
            uri.replace("NAME", &format!("{begin}-{round}-{number}"))
        };
        let status = call(host, &format!("POST {}", name("evil-uri")), "", BODIES[0])?;
        ensure!(!status.starts_with('2'), "{uri}: {status}");
        call(host, &format!("POST {}", name("fine")), "", PLAIN)?;
    }
    let fine = containers(host, &format!("fine-{round}"))?;
    ensure!(fine.len() == 6, "allowed by spelling: {fine:?}");
    for (number, body) in BODIES.iter().enumerate() {
        let line = format!("POST /v1.41/containers/create?name=evil-body-{round}-{number}");
        let status = call(host, &line, "", body)?;
        ensure!(!status.starts_with('2'), "{body}: {status}");
    }
    for (number, headers) in [
        "-H 'X-Drover-Authorization: 0000000000000000000000000000000000000000000000000000000000000000'",
        "-H 'Content-Type: text/plain'",
        "-H 'Content-Type: application/x-www-form-urlencoded'",
        "-H 'Transfer-Encoding: chunked'",
        "-H 'Content-Length: 0'",
        "-H 'Content-Length: 5' -H 'Transfer-Encoding: chunked'",
        "-H 'Transfer-Encoding: gzip, chunked'",
        "-H 'Content-Encoding: gzip'",
        "-H 'Connection: Content-Type'",
        "-H 'Connection: X-Drover-Authorization'",
        "-H 'Connection: Upgrade' -H 'Upgrade: h2c'",
        "-H 'X-HTTP-Method-Override: GET'",
        "-H 'Host: a' -H 'Host: b'",
    ]
    .iter()
    .enumerate()
    {
        let line = format!("POST /v1.41/containers/create?name=evil-header-{round}-{number}");
        let status = host.attempt(&format!("printf '%s' '{}' | curl -s -m 10 -o /tmp/answer -w '%{{http_code}}' --unix-socket {} -X POST -H 'Content-Type: application/json' {headers} --data-binary @- 'http://localhost{}'", BODIES[0], socket("ann"), line.trim_start_matches("POST ")))?;
        ensure!(!status.stdout.trim().starts_with('2'), "{headers}: {status:?}");
    }
    for kilobytes in [1000, 1100, 2048, 4300] {
        let status = host.run(&format!(
            "{{ printf '{{\"Image\":\"lab\",\"Cmd\":[\"true\"],\"HostConfig\":{{\"Privileged\":true}},\"Labels\":{{\"pad\":\"'; \
             head -c {kilobytes}000 /dev/zero | tr '\\0' x; printf '\"}}}}'; }} > /tmp/large; \
             curl -s -m 60 -o /tmp/answer -w '%{{http_code}}' --unix-socket {} -H 'Content-Type: application/json' -H 'Expect:' \
             --data-binary @/tmp/large 'http://localhost/v1.41/containers/create?name=evil-large-{round}-{kilobytes}'",
            socket("ann")
        ))?;
        ensure!(
            status == if kilobytes > 4200 { "413" } else { "403" },
            "{kilobytes} kB: {status}"
        );
    }
    let evil = containers(host, "evil")?;
    ensure!(evil.is_empty(), "there is what was denied: {evil:?}");
    Ok(())
}

/// Processes that end, and policies that are bad.
fn faults(host: &mut Host) -> Result<()> {
    let works = |host: &Host| {
        wait::until("the socket", wait::seconds(20), || {
            let said = host.run(&by("ann", "docker ps --format '{{.Names}}'"))?;
            ensure!(said == "anns", "{said}");
            Ok(())
        })?;
        anyhow::Ok(())
    };
    let denies = |host: &Host| {
        host.refused(&by("ann", "docker exec secret true"))
            .map(drop)
    };
    // Killed: served again, with what it knew of owners.
    host.kill("drover-authz", "KILL")?;
    works(host)?;
    denies(host)?;
    // Removed by somebody: bound again.
    host.run(&format!("rm {}", socket("ann")))?;
    works(host)?;
    // A policy that is not usable changes nothing.
    host.run("echo nonsense > /etc/drover/policy/site.cedar; sleep 2")?;
    works(host)?;
    denies(host)?;
    host.run("rm /etc/drover/policy/site.cedar")?;
    // The engine is gone, and comes back.
    stop_with_containers(host)?;
    let said = host.refused(&by("ann", "docker volume ls"))?;
    ensure!(said.contains("the engine does not answer"), "{said}");
    // As after a reboot: the folder of the sockets is gone.
    host.drover_down()?;
    host.run("rm -rf /run/drover-sockets")?;
    host.drover_up("")?;
    host.start_engine(FLAGS)?;
    host.run("docker start secret web his")?;
    host.run(&by("ann", "docker start anns"))?;
    works(host)?;
    files(host)?;
    denies(host)
}

/// Stops the engine; it would wait for containers that end by no signal but one.
fn stop_with_containers(host: &Host) -> Result<()> {
    host.run("docker kill $(docker ps -q)")?;
    host.stop_engine("TERM")
}

/// A socket that is not wanted any more takes its connections with it.
fn removal(host: &mut Host) -> Result<()> {
    host.start(
        &by("traefik", "timeout 120 docker events"),
        "events-removed",
    )?;
    wait::until("events", wait::seconds(10), || {
        host.run("docker restart -t 0 web")?;
        let said = host.tail("events-removed", 5);
        ensure!(said.contains("web"), "{said}");
        Ok(())
    })?;
    host.run(&format!(
        "drover authz socket --remove {}",
        socket("traefik")
    ))?;
    host.refused(&by("traefik", "docker ps"))?;
    host.refused(&format!("test -e {}", socket("traefik")))?;
    let before = host.tail("events-removed", 1000);
    host.run("docker restart -t 0 web; sleep 1")?;
    let after = host.tail("events-removed", 1000);
    ensure!(
        after == before || !after.trim_start_matches(before.as_str()).contains("web"),
        "events went on: {after}"
    );
    host.run(&by("ann", "docker ps")).map(drop)
}
