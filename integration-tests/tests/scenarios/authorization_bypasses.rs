//! Known ways around authorization plugins, each by its name, through real engines.
//!
//! What is denied must not have happened: that is looked at on the engine, not in the answer. Each way is taken by somebody who may
//! create containers and may not reach the host; beside it stands the same without the trick, which goes through, so that no denial is
//! one of everything.

use anyhow::{Context as _, Result, ensure};
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

use crate::authorization::{TLS, as_client, containers, set_up};
use crate::authorization_spellings::spellings;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "authorization_known_bypasses_are_denied",
    setup: Setup::Engines(1),
    needs: &[],
    run: known_bypasses,
}];

/// A way: what it relies on, and how it is taken.
type Way = (&'static str, fn(&Host) -> Result<()>);

const WAYS: &[Way] = &[
    ("a body that the plugin is not shown", no_body),
    ("a body that is too long to be shown", long_bodies),
    ("a plugin that leaves it to the answer", answers),
    ("a bind source that leads elsewhere", symbolic_links),
    ("a link that is put there after the call", links_put_later),
    ("a name that nobody has checked", identities),
    (
        "options that a filter of methods and paths does not see",
        options,
    ),
    (
        "a spelling that the plugin reads in another way than the engine",
        spellings,
    ),
    ("a body that is a form", forms),
];

/// Flags of `docker run` that reach the host, or somebody else's container.
pub(crate) const TO_THE_HOST: &[&str] = &[
    "--privileged",
    "-v /:/host",
    "--mount type=bind,source=/etc,target=/host",
    "-v /var/run/docker.sock:/docker.sock",
    "--mount type=volume,target=/h,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=/etc",
    "--cap-add SYS_ADMIN",
    "--pid host",
    "--network host",
    "--ipc host",
    "--uts host",
    "--device /dev/null",
    "--device-cgroup-rule 'a *:* rwm'",
    "--security-opt seccomp=unconfined",
    "--cgroup-parent /",
    "--sysctl net.ipv4.ip_forward=1",
    "--pid container:his",
    "--network container:his",
    "--volumes-from his",
    "--link his:x",
    "-v his-volume:/data",
    "-p 80:80",
    "--label io.drover.owner=bob",
];

/// Spellings of one call. `NAME` is the container's.
pub(crate) const URIS: &[&str] = &[
    "/v1.41/containers/create?name=NAME",
    "/containers/create?name=NAME",
    "/v1.41/containers%2Fcreate?name=NAME",
    "/v1.41/%63ontainers/create?name=NAME",
    "http://elsewhere/v1.41/containers/create?name=NAME",
    "/v1.41/containers/create?name=%4eAME",
    "//v1.41/containers/create?name=NAME",
    "/v1.41//containers/create?name=NAME",
    "/v1.41/x/../containers/create?name=NAME",
    "/v1.41/containers/create/?name=NAME",
];

/// Bodies that ask for the same: everything.
pub(crate) const BODIES: &[&str] = &[
    r#"{"Image":"lab","Cmd":["true"],"HostConfig":{"Privileged":true}}"#,
    r#"{"Image":"lab","Cmd":["true"],"hostconfig":{"pRIVILEGED":true}}"#,
    r#"{"Image":"lab","Cmd":["true"],"Privileged":true}"#,
    r#"{"Image":"lab","Cmd":["true"],"HostConfig":{"Privileged":false,"privileged":true}}"#,
    r#"{"Image":"lab","Cmd":["true"],"HostConfig":{},"hostConfig":{"Privileged":true}}"#,
    r#"{"Image":"lab","Cmd":["true"],"HostConfig":{"\u0050rivileged":true}}"#,
    r#"{"Image":"lab","Cmd":["true"],"HostConfig":{"Bind\u017f":["/:/host"]}}"#,
    r#"{"Image":"lab","Cmd":["true"],"HostConfig":{"CapAdd":"ALL"}}"#,
    r#"{"Image":"lab","Cmd":["true"],"HostConfig":{"CapAdd":["cap_sys_admin"]}}"#,
    r#"{"Image":"lab","Cmd":["true"],"HostConfig":{"Privileged":true}} {}"#,
    r#" null {"Image":"lab","HostConfig":{"Privileged":true}}"#,
    r#"{"Image":"lab","Cmd":["true"],"HostConfig":{"MaskedPaths":[],"ReadonlyPaths":[]}}"#,
    r#"{"Image":"lab","Cmd":["true"],"HostConfig":{"Binds":["/tmp/link:/host"]}}"#,
];

/// What asks for nothing but a container.
pub(crate) const PLAIN: &str = r#"{"Image":"lab","Cmd":["true"]}"#;

fn known_bypasses(lab: &mut Lab) -> Result<()> {
    let host = lab.host(0)?;
    set_up(host)?;
    host.run("ln -sfn /etc /tmp/link; mkdir -p /srv/ci/build; echo marker > /srv/ci/build/file")?;
    let big = "for n in $(seq 1 900); do printf 'FILLER_%s=%0100d\n' $n 0; done > /tmp/env; echo PASSWORD=hunter2 >> /tmp/env";
    host.run(big)?;
    host.run(&as_client(
        "bob",
        "docker run -d --name his -v his-volume:/data --env-file /tmp/env lab sh -c 'echo hunter2; exec sleep 600'",
    ))?;
    host.run(&as_client(
        "alice",
        "docker run -d --name hers lab sleep 600",
    ))?;
    for (name, way) in WAYS {
        way(host).with_context(|| (*name).to_owned())?;
        let evil = containers(host, "evil")?;
        ensure!(
            evil.is_empty(),
            "{name}: there is what was denied: {evil:?}"
        );
    }
    let running = host.run("docker inspect -f '{{.State.Running}} {{.RestartCount}}' his")?;
    ensure!(running == "true 0", "his: {running}");
    host.run("docker rm $(docker create --privileged -v /:/host lab true)")
        .map(drop)
}

/// Requests as they are written, over TLS, each on a connection of its own and all at once; the first line of each answer.
///
/// A client that has sent a request without an end waits for its answer, and the engine for more: it is not waited for either's end.
pub(crate) fn raw(host: &Host, client: &str, requests: &[String]) -> Result<Vec<String>> {
    let numbers: Vec<String> = (0..requests.len())
        .map(|number| number.to_string())
        .collect();
    for (number, request) in numbers.iter().zip(requests) {
        host.write(&format!("/tmp/request-{number}"), request)?;
    }
    let numbers = numbers.join(" ");
    let said = host.run(&format!(
        "exec 2>/dev/null; ask() {{ rm -f /tmp/said-$1; {{ cat /tmp/request-$1; sleep 10; }} | timeout 10 openssl s_client -quiet \
         -connect 127.0.0.1:2376 -CAfile {TLS}/ca.pem -cert {TLS}/{client}.pem -key {TLS}/{client}-key.pem > /tmp/said-$1 & }}
         for n in {numbers}; do ask $n; done
         for n in {numbers}; do
             for _ in $(seq 100); do [ -s /tmp/said-$n ] && break; sleep 0.1; done
             echo \"$(head -n 1 /tmp/said-$n)\"
         done"
    ))?;
    let said: Vec<String> = said.lines().map(|line| line.trim().to_owned()).collect();
    ensure!(
        said.len() == requests.len() && said.iter().all(|line| line.starts_with("HTTP/1.1 ")),
        "not all were answered: {said:?}"
    );
    Ok(said)
}

/// Creating a container over TLS, with headers and what follows them as they are.
fn creation(name: &str, headers: &str, sent: &str) -> String {
    format!(
        "POST /v1.41/containers/create?name={name} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{headers}\r\n\r\n{sent}"
    )
}

/// The engine took calls with a length of zero for calls without a body, and made them with one (CVE-2024-41110).
fn no_body(host: &Host) -> Result<()> {
    let body = BODIES[0];
    let in_a_chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let after_none = format!("0\r\n\r\n{body}");
    let attempts = [
        ("Content-Length: 0", body),
        ("X: y", body),
        ("Transfer-Encoding: chunked", &after_none),
        ("Transfer-Encoding: chunked", &in_a_chunk),
        (
            "Content-Length: 0\r\nTransfer-Encoding: chunked",
            &in_a_chunk,
        ),
        ("Content-Length: 0\r\nExpect: 100-continue", body),
        ("Content-Length: 0\r\nContent-Type: text/plain", body),
    ];
    let named = attempts.iter().enumerate();
    let mut requests: Vec<String> = named
        .map(|(number, (headers, sent))| creation(&format!("evil-empty-{number}"), headers, sent))
        .collect();
    let length = format!("Content-Length: {}", PLAIN.len());
    requests.push(creation("fine-raw", &length, PLAIN));
    let said = raw(host, "alice", &requests)?;
    for ((headers, _), said) in attempts.iter().zip(&said) {
        ensure!(!said.contains(" 2"), "{headers}: {said}");
    }
    let fine = said.last().context("no answer")?;
    ensure!(fine.contains(" 201"), "what may be made: {fine}");
    Ok(())
}

/// Bodies that an engine hides from its plugins (CVE-2026-34040), or refuses itself; what counts comes first, or last.
fn long_bodies(host: &Host) -> Result<()> {
    const MIB: usize = 1 << 20;
    for (number, (length, privileged_first)) in [
        65_536,
        MIB - 1,
        MIB,
        MIB + 1,
        2 * MIB,
        4 * MIB - 1,
        4 * MIB,
        4 * MIB + 1,
    ]
    .into_iter()
    .flat_map(|length| [(length, true), (length, false)])
    .enumerate()
    {
        let (before, after) = if privileged_first {
            (
                r#"{"Image":"lab","HostConfig":{"Privileged":true},"Labels":{"pad":""#,
                r#""}}"#,
            )
        } else {
            (
                r#"{"Labels":{"pad":""#,
                r#""},"Image":"lab","HostConfig":{"Privileged":true}}"#,
            )
        };
        let padding = length - before.len() - after.len();
        let status = host.run(&format!(
            "{{ printf '%s' '{before}'; head -c {padding} /dev/zero | tr '\\0' x; printf '%s' '{after}'; }} > /tmp/large; \
             test $(stat -c %s /tmp/large) = {length} && \
             curl -s -m 60 -o /tmp/answer -w '%{{http_code}}' --cacert {TLS}/ca.pem --cert {TLS}/alice.pem \
             --key {TLS}/alice-key.pem -H 'Content-Type: application/json' -H 'Expect:' {} --data-binary @/tmp/large \
             'https://127.0.0.1:2376/v1.41/containers/create?name=evil-long-{number}'",
            if number % 4 < 2 { "" } else { "-H 'Transfer-Encoding: chunked'" }
        ))?;
        ensure!(!status.starts_with('2'), "{length} bytes: {status}");
    }
    who_hides_bodies(host)
}

/// A long body that asks for nothing special is denied where the engine does not show it, and `drover doctor` names every such engine.
fn who_hides_bodies(host: &Host) -> Result<()> {
    let status = host.run(&format!(
        "{{ printf '{{\"Image\":\"lab\",\"Cmd\":[\"true\"],\"Labels\":{{\"pad\":\"'; head -c 2000000 /dev/zero | tr '\\0' x; \
         printf '\"}}}}'; }} | curl -s -m 60 -o /tmp/answer -w '%{{http_code}}' --cacert {TLS}/ca.pem --cert {TLS}/alice.pem \
         --key {TLS}/alice-key.pem -H 'Content-Type: application/json' -H 'Expect:' --data-binary @- \
         'https://127.0.0.1:2376/v1.41/containers/create?name=fine-long'"
    ))?;
    let is_named = host
        .attempt("drover doctor")?
        .stdout
        .contains("CVE-2026-34040");
    // One whose distribution has mended it without another version is named as well, with that reserve.
    ensure!(
        status == "201" || (status == "403" && is_named),
        "{status}, and named by doctor: {is_named}"
    );
    Ok(())
}

/// What an answer tells is not cut out of it afterwards: who may not have it does not get it. Answers of more than 64 KiB and streams
/// are never shown to a plugin.
fn answers(host: &Host) -> Result<()> {
    for command in [
        "docker inspect --type container his",
        "docker logs his",
        "timeout 3 docker logs -f his",
        "timeout 3 docker attach --no-stdin his",
        "docker top his",
        "docker diff his",
        "docker cp his:/etc/hostname -",
        "docker export his",
        "timeout 3 docker stats --no-stream his",
        "docker exec his cat /proc/1/environ",
        "docker commit his stolen",
        "docker run --rm --name evil-shared --volumes-from his lab true",
        "docker run --rm --name evil-shared --pid container:his lab cat /proc/1/environ",
    ] {
        let said = host
            .attempt(&as_client("alice", command))
            .with_context(|| command.to_owned())?;
        ensure!(
            said.code != Some(0) && !said.stdout.contains("hunter2"),
            "{command}: {said:?}"
        );
    }
    let said = host.run(&as_client("bob", "docker inspect his"))?;
    ensure!(
        said.len() > 65_536 && said.contains("hunter2"),
        "the answer is short: {}",
        said.len()
    );
    ensure!(host.run("docker images -q stolen")?.is_empty(), "committed");
    Ok(())
}

/// Links below a folder that may be bound, to one that may not.
fn symbolic_links(host: &Host) -> Result<()> {
    host.run("ln -sfn /etc /srv/ci/link; ln -sfn /srv/ci/build /srv/ci/inside; ln -sfn link /srv/ci/twice")?;
    for (number, flags) in [
        "-v /srv/ci/link:/host",
        "-v /srv/ci/twice:/host",
        "-v /srv/ci/link/ssl:/host",
        "-v /srv/ci/../../etc:/host",
        "-v /srv/ci/build/../link:/host",
        "-v /srv/cities:/host",
        "--mount type=bind,source=/srv/ci/link,target=/host",
        "--mount type=volume,target=/h,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=/srv/ci/link",
        "-v /srv/ci/build:/host:shared",
    ]
    .iter()
    .enumerate()
    {
        let said = host
            .refused(&as_client("ci", &format!("docker run -d --name evil-link-{number} {flags} lab sleep 60")))
            .with_context(|| (*flags).to_owned())?;
        ensure!(said.contains("drover: "), "{flags}: refused by another: {said}");
    }
    for path in ["/srv/ci/build", "/srv/ci/inside"] {
        let said = host.run(&as_client(
            "ci",
            &format!("docker run --rm -v {path}:/in lab cat /in/file"),
        ))?;
        ensure!(said == "marker", "{path}: {said}");
    }
    Ok(())
}

/// A container that may write to a folder puts a link in the place of one below it, which another container has bound already.
fn links_put_later(host: &Host) -> Result<()> {
    host.run("mkdir -p /srv/ci/work/sub && echo secret > /root/secret && mkdir -p /root/place && cp /root/secret /root/place/secret")?;
    let ci = |command: &str| as_client("ci", command);
    host.run(&ci(
        "docker create --name later -v /srv/ci/work/sub:/in lab cat /in/secret",
    ))?;
    host.run(&ci(
        "docker run --rm -v /srv/ci/work:/job lab sh -c 'rmdir /job/sub && ln -s /root/place /job/sub'",
    ))?;
    for command in ["docker start -a later", "docker restart later"] {
        let said = host.attempt(&ci(command))?;
        ensure!(
            said.code != Some(0) && !said.stdout.contains("secret"),
            "{command}: {said:?}"
        );
    }
    let said = host.run("docker logs later 2>&1")?;
    ensure!(!said.contains("secret"), "it has read it: {said}");
    // With the folder back it starts.
    host.run(
        "rm /srv/ci/work/sub && mkdir /srv/ci/work/sub && echo mine > /srv/ci/work/sub/secret",
    )?;
    let said = host.run(&ci("docker start -a later"))?;
    ensure!(said == "mine", "{said}");
    host.run(&ci("docker rm later")).map(drop)
}

/// Only a certificate gives a name, and none gives one that means something else.
fn identities(host: &Host) -> Result<()> {
    for client in ["local", "socket:admin", "nameless"] {
        for command in [
            "docker ps",
            "docker run -d --name evil-name --privileged lab sleep 60",
        ] {
            let said = host
                .refused(&as_client(client, command))
                .with_context(|| format!("{client}: {command}"))?;
            ensure!(said.contains("drover: "), "{client}: {said}");
        }
    }
    // Headers give none.
    let headers = "-H 'X-Drover-Authorization: x' -H 'X-Registry-Auth: admin' -H 'X-Forwarded-User: local' -H 'Authorization: Basic bG9jYWw6'";
    let status = host.run(&format!(
        "printf '%s' '{}' | curl -s -m 60 -o /tmp/answer -w '%{{http_code}}' --cacert {TLS}/ca.pem --cert {TLS}/alice.pem \
         --key {TLS}/alice-key.pem {headers} -H 'Content-Type: application/json' --data-binary @- \
         'https://127.0.0.1:2376/v1.41/containers/create?name=evil-header'",
        BODIES[0]
    ))?;
    ensure!(status == "403", "{status}");
    // Without a certificate there is no connection.
    host.refused(&format!(
        "curl -s -m 10 --cacert {TLS}/ca.pem https://127.0.0.1:2376/_ping"
    ))
    .map(drop)
}

/// What a container is given beyond itself, at its creation and later.
fn options(host: &Host) -> Result<()> {
    let alice = |command: &str| as_client("alice", command);
    host.run("mkdir -p /tmp/evil-build && echo FROM lab > /tmp/evil-build/Dockerfile")?;
    for (number, flags) in TO_THE_HOST.iter().enumerate() {
        let command = format!("docker run -d --name evil-flag-{number} {flags} lab sleep 60");
        let said = host
            .refused(&alice(&command))
            .with_context(|| (*flags).to_owned())?;
        ensure!(
            said.contains("drover: "),
            "{flags}: refused by another: {said}"
        );
    }
    for command in [
        "docker exec --privileged hers true",
        "docker network create -d host evil-net",
        "docker network create -d macvlan -o parent=eth0 evil-net",
        "docker network connect --link his:x bridge hers",
        "docker volume create -o type=none -o o=bind -o device=/ evil-volume",
        "docker volume create -o type=nfs -o o=addr=192.0.2.9 -o device=:/ evil-volume",
        "docker plugin install --grant-all-permissions evil/plugin",
        "docker swarm init",
        "docker build --network host /tmp/evil-build",
        "docker build --network container:his /tmp/evil-build",
        "docker system prune -af --volumes",
    ] {
        let said = host
            .refused(&alice(command))
            .with_context(|| command.to_owned())?;
        ensure!(
            said.contains("drover: "),
            "{command}: refused by another: {said}"
        );
    }
    ensure!(
        host.run("docker network ls -qf name=evil")?.is_empty(),
        "a network was made"
    );
    ensure!(
        host.run("docker volume ls -qf name=evil")?.is_empty(),
        "a volume was made"
    );
    host.run(&alice("docker exec hers true")).map(drop)
}

/// Fields of a form come before those of the URI for an engine, and a plugin is not shown them.
fn forms(host: &Host) -> Result<()> {
    let form = "-H 'Content-Type: application/x-www-form-urlencoded'";
    for (line, body) in [
        ("/v1.41/containers/hers/kill", "signal=KILL"),
        ("/v1.41/containers/create?name=evil-form", BODIES[0]),
        (
            "/v1.41/commit?container=hers&repo=fine",
            "container=his&repo=stolen",
        ),
    ] {
        let status = host.run(&format!(
            "printf '%s' '{body}' | curl -s -m 60 -o /tmp/answer -w '%{{http_code}}' --cacert {TLS}/ca.pem --cert {TLS}/alice.pem \
             --key {TLS}/alice-key.pem {form} --data-binary @- 'https://127.0.0.1:2376{line}'"
        ))?;
        ensure!(!status.starts_with('2'), "{line}: {status}");
    }
    ensure!(host.run("docker images -q stolen")?.is_empty(), "committed");
    let running = host.run("docker inspect -f '{{.State.Running}}' hers")?;
    ensure!(running == "true", "hers: {running}");
    wait::until("the engine", wait::seconds(10), || {
        host.run("docker version")
    })?;
    Ok(())
}
