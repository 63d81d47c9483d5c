//! Published ports: reached from everywhere, and shown by Docker's own commands.

use anyhow::{Context, Result, ensure};
use drover_testkit::capability::Capability;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "port_is_reached_and_shown",
        setup: Setup::Cluster,
        needs: &[],
        run: reached,
    },
    Scenario {
        name: "port_of_one_address_range_and_ephemeral",
        setup: Setup::Cluster,
        needs: &[],
        run: kinds,
    },
    Scenario {
        name: "port_udp",
        setup: Setup::Cluster,
        needs: &[],
        run: udp,
    },
    Scenario {
        name: "port_over_ipv6",
        setup: Setup::Cluster,
        needs: &[Capability::Ipv6],
        run: over_ipv6,
    },
    Scenario {
        name: "port_outlives_a_restart_of_its_container",
        setup: Setup::Cluster,
        needs: &[],
        run: restart,
    },
];

fn reached(lab: &mut Lab) -> Result<()> {
    lab.network("app", "")?;
    let (one, two) = lab.pair()?;
    one.web("web", "--network app -p 8080:80")?;
    let page = "this is web";
    let own = format!("http://{}:8080", one.address());
    for (host, url) in [
        (one, own.as_str()),
        (one, "http://127.0.0.1:8080"),
        (two, own.as_str()),
    ] {
        let (said, _) = wait::until("the page", wait::seconds(2), || host.fetch(url))?;
        ensure!(said == page, "{url} on {} says {said}", host.name);
    }
    let outside = lab
        .underlay
        .outside()
        .run(&format!("curl -sS -m 5 {own}"))?;
    ensure!(outside.trim() == page, "from outside: {outside}");
    let shown = one.run("docker ps --filter name=web --format '{{.Ports}}'")?;
    ensure!(
        shown.contains("0.0.0.0:8080->80/tcp"),
        "docker ps shows {shown}"
    );
    let port = one.run("docker port web 80/tcp")?;
    ensure!(port.contains("0.0.0.0:8080"), "docker port shows {port}");
    let inspected = one.inspect("web", "{{json .NetworkSettings.Ports}}")?;
    ensure!(
        inspected.contains("\"HostPort\":\"8080\""),
        "inspect shows {inspected}"
    );
    one.run("docker rm -f web")?;
    ensure!(
        two.attempt(&format!("curl -sS -m 2 {own}"))?.code != Some(0),
        "the port outlives its container"
    );
    Ok(())
}

fn kinds(lab: &mut Lab) -> Result<()> {
    lab.network("app", "")?;
    let (one, two) = lab.pair()?;
    let address = one.address();
    one.web("addressed", &format!("--network app -p {address}:8081:80"))?;
    two.fetch(&format!("http://{address}:8081"))?;
    one.refused("curl -sS -m 2 http://127.0.0.1:8081")?;
    one.web("ranged", "--network app -p 9000-9002:80-82")?;
    two.fetch(&format!("http://{address}:9000"))?;
    let shown = one.run("docker port ranged")?;
    for port in [
        "80/tcp -> 0.0.0.0:9000",
        "81/tcp -> 0.0.0.0:9001",
        "82/tcp -> 0.0.0.0:9002",
    ] {
        ensure!(shown.contains(port), "docker port shows {shown}");
    }
    one.web("ephemeral", "--network app -p 80")?;
    let shown = one.run("docker port ephemeral 80/tcp")?;
    let port = shown
        .lines()
        .next()
        .and_then(|line| line.rsplit(':').next())
        .context("a port")?;
    ensure!(
        two.fetch(&format!("http://{address}:{port}"))? == "this is ephemeral",
        "not the page"
    );
    Ok(())
}

fn udp(lab: &mut Lab) -> Result<()> {
    lab.network("app", "")?;
    {
        let (one, _) = lab.pair_mut()?;
        one.sleeper("echo", "--network app -p 5353:53/udp")?;
        let pid = one.pid_of("echo")?;
        one.start(
            &format!("nsenter --target {pid} --net -- socat UDP-LISTEN:53,fork EXEC:cat"),
            "echo.log",
        )?;
    }
    let (one, two) = lab.pair()?;
    let ask = format!("echo hello | socat -t 1 - UDP:{}:5353", one.address());
    for host in [two, one] {
        wait::until("the echo", wait::seconds(5), || {
            let said = host.run(&ask)?;
            ensure!(said == "hello", "it says {said}");
            Ok(())
        })?;
    }
    let shown = one.run("docker port echo")?;
    ensure!(
        shown.contains("53/udp -> 0.0.0.0:5353"),
        "docker port shows {shown}"
    );
    Ok(())
}

fn over_ipv6(lab: &mut Lab) -> Result<()> {
    lab.network("app", "")?;
    let (one, two) = lab.pair()?;
    one.web("web", "--network app -p 8080:80")?;
    let said = two.fetch(&format!("http://[{}]:8080", one.address_v6()))?;
    ensure!(said == "this is web", "it says {said}");
    let shown = one.run("docker port web 80/tcp")?;
    ensure!(
        shown.contains("[::]:8080") || shown.contains(":::8080"),
        "docker port shows {shown}"
    );
    Ok(())
}

fn restart(lab: &mut Lab) -> Result<()> {
    lab.network("app", "")?;
    let (one, two) = lab.pair()?;
    one.web("web", "--network app -p 8080:80")?;
    let url = format!("http://{}:8080", one.address());
    for _ in 0..3 {
        one.run("docker restart -t 0 web")?;
        wait::until("the page after a restart", wait::seconds(3), || {
            two.fetch(&url)
        })?;
    }
    one.run("docker stop -t 0 web")?;
    one.run("docker start web")?;
    wait::until("the page after a stop", wait::seconds(3), || {
        two.fetch(&url)
    })?;
    Ok(())
}
