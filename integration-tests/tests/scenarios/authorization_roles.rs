//! Roles at work on a real engine: what updates containers, what backs them up, and rules that are learned from what was done.
//!
//! What is denied must not have happened: that is looked at on the engine, not in the answer.

use anyhow::{Context as _, Result, ensure};
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "authorization_roles_update_back_up_and_are_learned",
    setup: Setup::Engines(1),
    needs: &[],
    run: roles,
}];

const FLAGS: &str = "--authorization-plugin=drover-authz";
const SETUP: &str = "[roles]\nadmin = [\"local\"]\n[paths]\nupdater = [\"/srv/config\"]\n";

fn socket(name: &str) -> String {
    format!("/run/drover-sockets/{name}/docker.sock")
}

fn by(name: &str, command: &str) -> String {
    format!("DOCKER_HOST=unix://{} {command}", socket(name))
}

fn roles(lab: &mut Lab) -> Result<()> {
    let host = lab.host(0)?;
    host.run("mkdir -p /etc/drover/policy /srv/config && echo configured > /srv/config/file")?;
    host.write("/etc/drover/policy/authorization.toml", SETUP)?;
    for role in ["updater", "backup"] {
        host.run(&format!(
            "drover authz socket --role {role} {}",
            socket(role)
        ))?;
    }
    host.run(&format!(
        "drover authz socket --role reader --user deployer --monitor {}",
        socket("deployer")
    ))?;
    host.drover_up("")?;
    host.stop_engine("TERM")?;
    host.start_engine(FLAGS)?;
    host.run(
        "docker volume create shop && docker network create shop && docker tag lab shop:1 && \
         docker run -d --name web --network shop -v shop:/data -v /srv/config:/etc/web:ro -p 8080:80 --label team=shop shop:1 \
         sh -c 'echo paid > /data/orders; echo started; exec sleep 1000000'",
    )?;
    updates(host)?;
    backs_up(host)?;
    learns(host)
}

/// Each of these is denied by a rule, or for want of one.
fn denied(host: &Host, name: &str, commands: &[&str]) -> Result<()> {
    for command in commands {
        let said = host
            .refused(&by(name, &format!("docker {command}")))
            .with_context(|| format!("{name}: {command}"))?;
        ensure!(said.contains("drover: "), "{name}: {command}: {said}");
    }
    let evil = host.run("docker ps -aqf name=evil; ls /tmp/stolen 2>/dev/null || true")?;
    ensure!(evil.is_empty(), "{name}: there is what was denied: {evil}");
    Ok(())
}

/// What Watchtower does: the same container of a newer image in the place of the old one.
fn updates(host: &Host) -> Result<()> {
    host.run("docker tag lab shop:2")?;
    host.run(&by(
        "updater",
        "sh -c 'set -e; docker inspect web >/tmp/old; docker stop -t 0 web; docker rename web web-old; \
         docker create --name web --network shop -v shop:/data -v /srv/config:/etc/web:ro -p 8080:80 --label team=shop shop:2 \
         sh -c \"cat /data/orders /etc/web/file; exec sleep 1000000\"; docker start web; docker rm web-old'",
    ))?;
    let said = host.run(
        "docker inspect -f '{{.Config.Image}} {{.State.Running}} {{.Config.Labels.team}}' web",
    )?;
    ensure!(said == "shop:2 true shop", "{said}");
    wait::until("the new one", wait::seconds(10), || {
        let said = host.run("docker logs web")?;
        ensure!(said == "paid\nconfigured", "{said}");
        Ok(())
    })?;
    denied(
        host,
        "updater",
        &[
            "exec web true",
            "logs web",
            "cp web:/data/orders /tmp/stolen",
            "create --name evil --privileged shop:2 true",
            "create --name evil -v /etc:/host shop:2 true",
            "create --name evil --network host shop:2 true",
            "create --name evil --volumes-from web shop:2 true",
            "volume rm shop",
        ],
    )
}

/// A container is still while its files are read, and a volume is read by a container of one's own.
fn backs_up(host: &Host) -> Result<()> {
    host.run(&by("backup", "docker pause web"))?;
    let said = host.run(&by("backup", "docker cp web:/data/orders - | tar -xO"))?;
    ensure!(said == "paid", "{said}");
    host.run(&by("backup", "docker unpause web"))?;
    host.run(&by("backup", "docker logs web"))?;
    let said = host.run(&by(
        "backup",
        "docker run --rm -v shop:/from:ro lab cat /from/orders",
    ))?;
    ensure!(said == "paid", "{said}");
    denied(
        host,
        "backup",
        &[
            "exec web true",
            "rm -f web",
            "cp /etc/hostname web:/data/orders",
            "run --rm --name evil -v shop:/from lab sh -c 'echo stolen > /from/orders'",
            "run --rm --name evil -v /:/from:ro lab true",
            "run --rm --name evil -v new:/from:ro lab true",
            "volume rm shop",
        ],
    )?;
    let said = host.run("docker exec web cat /data/orders; docker volume ls -qf name=new")?;
    ensure!(said == "paid", "{said}");
    Ok(())
}

/// What a role's socket lets through while it is watched becomes its rules, and no more than that.
fn learns(host: &Host) -> Result<()> {
    const WORK: &[&str] = &[
        "ps",
        "run -d --name shown --network shop -p 8081:80 shop:2 sleep 1000000",
        "logs shown",
        "rm -f shown",
    ];
    let by_deployer = |command: &str| by("deployer", &format!("docker {command}"));
    for command in WORK {
        host.run(&by_deployer(command))?;
    }
    let rules = "/etc/drover/policy/learned.cedar";
    let learned = wait::until("what is learned", wait::seconds(10), || {
        let said = host.run("drover policy learn")?;
        ensure!(said.contains("ContainerDelete"), "{said}");
        Ok(said)
    })?;
    host.write(rules, &learned.0)?;
    host.run("drover policy check")?;
    host.run(&format!(
        "drover authz socket --remove {0}; drover authz socket --role reader --user deployer {0}",
        socket("deployer")
    ))?;
    wait::until("the learned rules", wait::seconds(10), || {
        host.run(&by_deployer("ps"))
    })?;
    for command in WORK {
        host.run(&by_deployer(command))
            .with_context(|| format!("learned: {command}"))?;
    }
    denied(
        host,
        "deployer",
        &[
            "run -d --name evil -v /:/host --network shop shop:2 true",
            "run -d --name evil --privileged --network shop shop:2 true",
            "run -d --name evil --network host shop:2 true",
            "exec web true",
            "rm -f web",
            "volume rm shop",
        ],
    )
}
