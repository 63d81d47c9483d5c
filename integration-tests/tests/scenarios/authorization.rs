//! Who may call the engine: the plugin in front of real engines, with clients that have certificates.
//!
//! What is denied must not have happened: that is looked at on the engine, not in the answer.

use anyhow::{Context as _, Result, ensure};
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

use crate::authorization_bypasses::{BODIES, TO_THE_HOST};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "authorization_developers_run_and_do_not_get_the_host",
        setup: Setup::Engines(1),
        needs: &[],
        run: developers,
    },
    Scenario {
        name: "authorization_without_its_plugin_the_engine_denies",
        setup: Setup::Engines(1),
        needs: &[],
        run: without_the_plugin,
    },
];

/// Where the certificates are: a folder a client.
pub(crate) const TLS: &str = "/root/tls";
/// The engine's flags.
const FLAGS: &str = "--authorization-plugin=drover-authz -H unix:///var/run/docker.sock -H tcp://127.0.0.1:2376 \
     --tlsverify --tlscacert=/root/tls/ca.pem --tlscert=/root/tls/server.pem --tlskey=/root/tls/server-key.pem";
/// Who is who.
const SETUP: &str = r#"[groups]
team = ["alice", "bob"]
[roles]
admin = ["local"]
developer = ["group:team"]
ci-runner = ["ci"]
[paths]
ci-runner = ["/srv/ci"]
"#;

/// An authority, a certificate of the engine, and one of each client.
const CERTIFICATES: &str = r#"
set -e
mkdir -p /root/tls && cd /root/tls
new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$1" -keyout "$2-key.pem" -out "$2.csr" 2>/dev/null; }
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca-key.pem -out ca.pem 2>/dev/null
new /CN=engine server
printf 'subjectAltName=IP:127.0.0.1' > san
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile san -out server.pem 2>/dev/null
for client in alice bob ci local socket:admin nameless; do
    subject=/CN=$client; [ $client != nameless ] || subject=/O=nameless
    new $subject $client
    openssl x509 -req -in $client.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -out $client.pem 2>/dev/null
    mkdir -p $client
    cp ca.pem $client/ca.pem; cp $client.pem $client/cert.pem; cp $client-key.pem $client/key.pem
done
"#;

/// Starts Drover with a policy, and the engine anew, told to ask the plugin.
pub(crate) fn set_up(host: &mut Host) -> Result<()> {
    host.run(CERTIFICATES).context("making certificates")?;
    host.run(&format!(
        "mkdir -p /etc/drover/policy && printf '%s' '{SETUP}' > /etc/drover/policy/authorization.toml"
    ))?;
    host.stop_engine("TERM")?;
    host.drover_up("")?;
    host.start_engine(FLAGS)
}

/// A command with a client's certificate.
pub(crate) fn as_client(client: &str, command: &str) -> String {
    format!(
        "DOCKER_HOST=tcp://127.0.0.1:2376 DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH={TLS}/{client} DOCKER_BUILDKIT=0 {command}"
    )
}

/// A call as it is written, with a client's certificate; the status.
pub(crate) fn call(host: &Host, client: &str, line: &str, body: &str) -> Result<String> {
    let (method, uri) = line.split_once(' ').context("a method and a URI")?;
    host.run(&format!(
        "printf '%s' '{body}' | curl -s -m 60 -o /tmp/answer -w '%{{http_code}}' --path-as-is \
         --cacert {TLS}/ca.pem --cert {TLS}/{client}.pem --key {TLS}/{client}-key.pem \
         -X {method} --request-target '{uri}' -H 'Content-Type: application/json' --data-binary @- \
         https://127.0.0.1:2376/"
    ))
}

/// Every container whose name begins so, seen by root.
pub(crate) fn containers(host: &Host, prefix: &str) -> Result<Vec<String>> {
    let said = host.run("docker ps -a --format '{{.Names}}'")?;
    let names = said.lines().filter(|name| name.starts_with(prefix));
    Ok(names.map(str::to_owned).collect())
}

fn developers(lab: &mut Lab) -> Result<()> {
    let host = lab.host(0)?;
    set_up(host)?;
    own_things(host)?;
    for flags in TO_THE_HOST {
        let command = format!("docker run -d --name evil {flags} lab sleep 60");
        let said = host
            .refused(&as_client("alice", &command))
            .with_context(|| format!("alice: {flags}"))?;
        ensure!(
            said.contains("drover: "),
            "{flags}: refused by another: {said}"
        );
    }
    let evil = containers(host, "evil")?;
    ensure!(evil.is_empty(), "there is what was denied: {evil:?}");
    nothing_secret_is_logged(host)?;
    // Root goes on as before.
    host.run(
        "docker rm $(docker create --privileged -v /:/host lab true) && docker run --rm lab true",
    )?;
    host.run("drover status")?;
    Ok(())
}

/// Alice has her things, and Bob's are not hers.
fn own_things(host: &Host) -> Result<()> {
    let alice = |command: &str| as_client("alice", command);
    let bob = |command: &str| as_client("bob", command);
    host.run(&alice("docker run -d --name web -v hers:/data -e PASSWORD=hunter2 -p 8080:80 --restart on-failure lab sleep 600"))?;
    host.run(&bob(
        "docker run -d --name his -v his-volume:/data lab sleep 600",
    ))?;
    for command in [
        "ps",
        "exec web true",
        "logs web",
        "inspect web",
        "stats --no-stream web",
        "cp web:/etc/passwd /tmp/copy",
    ] {
        host.run(&alice(&format!("docker {command}")))
            .with_context(|| format!("alice: {command}"))?;
    }
    host.run(&alice("docker network create hers && docker network connect hers web && docker network disconnect hers web && docker network rm hers"))?;
    for command in [
        "exec web true",
        "logs web",
        "kill web",
        "stop web",
        "rm -f web",
        "cp web:/etc/passwd /tmp/stolen",
        "inspect --type container web",
        "attach web",
        "commit web stolen",
        "export web",
        "volume rm hers",
        "volume inspect hers",
        "system prune -f",
        "swarm init",
    ] {
        let said = host
            .refused(&bob(&format!("docker {command} </dev/null")))
            .with_context(|| format!("bob: {command}"))?;
        ensure!(said.contains("drover: "), "bob: {command}: {said}");
    }
    let running = host.run("docker inspect -f '{{.State.Running}}' web")?;
    ensure!(running == "true", "web: {running}");
    ensure!(
        host.attempt("test -e /tmp/stolen")?.code != Some(0),
        "copied"
    );
    ensure!(host.run("docker images -q stolen")?.is_empty(), "committed");
    // A certificate cannot give itself a name that means something else.
    let said = host.refused(&as_client("local", "docker ps"))?;
    ensure!(said.contains("reserved"), "{said}");
    Ok(())
}

fn nothing_secret_is_logged(host: &Host) -> Result<()> {
    let log = "/var/lib/drover/authz/decisions.log";
    let said = host.run(&format!("cat {log}"))?;
    ensure!(!said.contains("hunter2"), "a password is in {log}");
    let denied = said
        .lines()
        .filter(|line| {
            line.contains("\"decision\":\"deny\"") && line.contains("\"user\":\"alice\"")
        })
        .count();
    ensure!(
        denied >= TO_THE_HOST.len(),
        "{denied} denials of alice in {log}"
    );
    ensure!(
        said.contains("\"operation\":\"ContainerCreate\"") && said.contains("own-things:create"),
        "no rule in {log}"
    );
    Ok(())
}

fn without_the_plugin(lab: &mut Lab) -> Result<()> {
    let host = lab.host(0)?;
    set_up(host)?;
    let evil = |number: u32| format!("POST /v1.41/containers/create?name=evil-{number}");
    bad_policies(host)?;

    // Hung: the engine waits, and does nothing.
    let pid = host.processes("drover-authz")?;
    let pid = pid.first().context("the plugin's process")?;
    host.run(&format!("kill -STOP {pid}"))?;
    let said = host.attempt(&as_client(
        "alice",
        "timeout 3 docker run -d --name evil-hung --privileged lab true",
    ))?;
    ensure!(said.code != Some(0), "{said:?}");
    host.run(&format!("kill -CONT {pid}"))?;
    host.run("docker ps")?;

    slow(host, *pid)?;

    // Killed: started again, with the same socket.
    host.kill("drover-authz", "KILL")?;
    host.run("docker ps")?;
    let status = call(host, "alice", &evil(1), BODIES[0])?;
    ensure!(status == "403", "{status}");

    // Gone: the engine denies by itself, and stays.
    let engine = host.processes("dockerd")?;
    host.kill_drover()?;
    host.kill("drover-authz", "KILL")?;
    let status = call(host, "alice", &evil(2), BODIES[0])?;
    ensure!(status.starts_with('5'), "{status}");
    ensure!(host.processes("dockerd")? == engine, "the engine has ended");
    host.drover_up("")?;
    wait::until("an engine that answers", wait::seconds(30), || {
        host.run("docker ps")
    })?;

    // The engine restarts with it, and root is root.
    host.stop_engine("TERM")?;
    host.start_engine(FLAGS)?;
    host.run("docker rm $(docker create --privileged lab true)")?;
    let status = call(host, "alice", &evil(3), BODIES[0])?;
    ensure!(status == "403", "{status}");
    let left = containers(host, "evil")?;
    ensure!(left.is_empty(), "there is what was denied: {left:?}");
    Ok(())
}

/// Slow: calls wait, and are decided as before; one that is being asked about when the plugin is killed is not made.
fn slow(host: &Host, pid: u32) -> Result<()> {
    let asleep = |seconds: u32, command: &str| {
        host.attempt(&format!(
            "kill -STOP {pid}; (sleep {seconds}; kill -CONT {pid}) & {command}"
        ))
    };
    let said = asleep(
        3,
        &as_client(
            "alice",
            "docker run -d --name evil-slow --privileged lab true",
        ),
    )?;
    ensure!(
        said.code != Some(0) && said.stderr.contains("drover: "),
        "{said:?}"
    );
    let said = asleep(3, &as_client("alice", "docker create --name late lab true"))?;
    ensure!(said.code == Some(0), "{said:?}");
    let late = containers(host, "late")?;
    ensure!(late == ["late"], "made once: {late:?}");
    host.run("docker ps")?;
    let said = host.attempt(&format!(
        "kill -STOP {pid}; (sleep 2; kill -KILL {pid}) & {}",
        as_client(
            "alice",
            "docker run -d --name evil-killed --privileged lab true"
        )
    ))?;
    ensure!(said.code != Some(0), "{said:?}");
    wait::until("a plugin that answers", wait::seconds(20), || {
        host.run("docker ps")
    })?;
    Ok(())
}

/// A bad policy leaves the old one in force, and is told; a good one is in force within seconds.
fn bad_policies(host: &Host) -> Result<()> {
    let site = "/etc/drover/policy/site.cedar";
    let alice = as_client("alice", "docker volume ls");
    host.run(&alice)?;
    host.run(&format!(
        "echo 'forbid (principal, action == Action::\"VolumeLst\", resource);' > {site}"
    ))?;
    wait::until("the fault in the status", wait::seconds(10), || {
        let said = host.run("drover status")?;
        ensure!(said.contains("VolumeLst"), "{said}");
        Ok(())
    })?;
    host.run(&alice)?;
    host.run(&format!(
        "echo '@id(\"no-volumes\") @reason(\"not today\") forbid (principal in Role::\"developer\", action == Action::\"VolumeList\", resource);' > {site}"
    ))?;
    wait::until("a new policy", wait::seconds(10), || {
        let said = host.refused(&alice)?;
        ensure!(
            said.contains("site:no-volumes") && said.contains("not today"),
            "{said}"
        );
        Ok(())
    })?;
    host.run(&format!("rm {site}"))?;
    wait::until("the old policy", wait::seconds(10), || host.run(&alice))?;
    Ok(())
}
