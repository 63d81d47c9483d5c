//! One Compose file, unmodified, on both hosts.

use anyhow::{Result, ensure};
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "compose_up_down_and_up_again_on_both_hosts",
        setup: Setup::Cluster,
        needs: &[],
        run: up_down_up,
    },
    Scenario {
        name: "compose_down_on_one_host_while_the_other_is_up",
        setup: Setup::Cluster,
        needs: &[],
        run: down_on_one,
    },
    Scenario {
        name: "compose_up_on_both_hosts_at_once",
        setup: Setup::Cluster,
        needs: &[],
        run: at_once,
    },
];

const FILE: &str = "
services:
  web:
    image: lab
    command: sh -c 'hostname > /www/index.html; exec httpd -f -p 80 -h /www'
    ports: [\"8080:80\"]
    networks: [app]
  client:
    image: lab
    command: sleep 1000000
    networks: [app]
networks:
  app:
    driver: drover-net
    driver_opts: {encryption: \"off\"}
    ipam: {driver: drover-ipam}
    labels: {color: green}
";

/// Writes the file, as a person would check it out.
fn check_out(host: &Host) -> Result<()> {
    host.run(&format!(
        "mkdir -p /srv/shop && cat > /srv/shop/compose.yaml <<'EOF'\n{FILE}\nEOF"
    ))?;
    Ok(())
}

fn up(host: &Host) -> Result<()> {
    host.run("cd /srv/shop && docker compose up -d --pull never")?;
    Ok(())
}

fn down(host: &Host) -> Result<()> {
    host.run("cd /srv/shop && docker compose down -t 0")?;
    Ok(())
}

/// Every client reaches every web server by address within so many seconds, its own by name, and both ports answer.
fn works(one: &Host, two: &Host, limit: u64) -> Result<()> {
    for (host, other) in [(one, two), (two, one)] {
        let address = other.address_of("shop-web-1", "shop_app")?;
        host.reaches("shop-client-1", &address, limit)?;
        wait::until("the page across hosts", wait::seconds(3), || {
            host.inside(
                "shop-client-1",
                &format!("wget -q -T 2 -O - http://{address}/"),
            )
        })?;
        host.inside("shop-client-1", "wget -q -T 2 -O - http://web/")?;
        let own = host.address_of("shop-web-1", "shop_app")?;
        for name in ["web", "web.shop_app"] {
            host.is_told("shop-client-1", name, &[&own, &address], 5)?;
            let told = host.told_in_order("shop-client-1", name)?;
            ensure!(
                told.first() == Some(&own),
                "the nearest comes first: {told:?}"
            );
        }
        host.fetch(&format!("http://{}:8080/", other.address()))?;
        host.fetch("http://127.0.0.1:8080/")?;
        let shown = host.run("cd /srv/shop && docker compose ps")?;
        ensure!(
            shown.contains("8080->80"),
            "docker compose ps shows no port: {shown}"
        );
    }
    ensure!(
        one.subnet_of("shop_app")? == two.subnet_of("shop_app")?,
        "two networks of one name"
    );
    Ok(())
}

fn up_down_up(lab: &mut Lab) -> Result<()> {
    let (one, two) = lab.pair()?;
    for host in [one, two] {
        check_out(host)?;
    }
    for _ in 0..2 {
        up(one)?;
        two.wait_for_network("shop_app", 2)?;
        up(two)?;
        works(one, two, 1)?;
        down(one)?;
        down(two)?;
        for host in [one, two] {
            host.wait_for_no_network("shop_app", 5)?;
        }
    }
    Ok(())
}

fn down_on_one(lab: &mut Lab) -> Result<()> {
    let (one, two) = lab.pair()?;
    for host in [one, two] {
        check_out(host)?;
        up(host)?;
    }
    works(one, two, 1)?;
    let web = two.address_of("shop-web-1", "shop_app")?;
    down(one)?;
    two.reaches("shop-client-1", &web, 0)?;
    one.wait_for_network("shop_app", 2)?;
    up(one)?;
    ensure!(
        two.address_of("shop-web-1", "shop_app")? == web,
        "the other host's container has moved"
    );
    works(one, two, 1)?;
    down(two)?;
    down(one)?;
    for host in [one, two] {
        host.wait_for_no_network("shop_app", 5)?;
    }
    Ok(())
}

fn at_once(lab: &mut Lab) -> Result<()> {
    let (one, two) = lab.pair()?;
    for host in [one, two] {
        check_out(host)?;
    }
    let ups = std::thread::scope(|scope| {
        let other = scope.spawn(|| up(two));
        (up(one), other.join())
    });
    let failed = ups.0.is_err() || !matches!(ups.1, Ok(Ok(())));
    if failed {
        // One may lose the race for the name; asking again is what its message tells.
        wait::until("compose up after a race", wait::seconds(10), || {
            up(one).and_then(|()| up(two))
        })?;
    }
    // The loser's network has just been replaced by the winner's: the hosts may still be telling each other.
    works(one, two, 5)?;
    for host in [one, two] {
        down(host)?;
    }
    Ok(())
}
