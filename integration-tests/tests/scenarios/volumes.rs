//! Volumes: what Docker's commands do with them, and what outlives what.

use anyhow::{Result, ensure};
use integration_tests::host::Host;
use integration_tests::lab::{IMAGE, Lab};
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "volumes_are_made_used_and_removed",
        setup: Setup::Engines(1),
        needs: &[],
        run: everyday,
    },
    Scenario {
        name: "volumes_outlive_kills_restarts_and_reboot",
        setup: Setup::Engines(1),
        needs: &[],
        run: outlive,
    },
];

const PROJECT: &str = r#"
services:
  db:
    image: IMAGE
    command: sleep 1000000
    stop_grace_period: 0s
    labels:
      drover.snapshot.pre: "echo before > /data/mark"
      drover.snapshot.post: "rm /data/mark; touch /cache/undone"
    volumes: ["data:/data", "cache:/cache"]
volumes:
  data: {driver: drover-vol, driver_opts: {size: 64M}}
  cache: {driver: drover-vol}
"#;

/// A command with a volume at `/data`.
pub(crate) fn with(host: &Host, volume: &str, command: &str) -> Result<String> {
    host.run(&format!(
        "docker run --rm -v {volume}:/data {IMAGE} sh -c '{command}'"
    ))
}

/// Waits until a number of volumes are attached.
pub(crate) fn attached(host: &Host, wanted: u64) -> Result<()> {
    wait::until(
        &format!("{wanted} attached volumes"),
        wait::seconds(20),
        || {
            let status = host.drover_json("status")?;
            let count = status["volumes"]["attached"].as_u64();
            ensure!(count == Some(wanted), "attached: {count:?}");
            let mounts = host.run("grep -c volumes/mounts/ /proc/self/mountinfo || true")?;
            ensure!(mounts == wanted.to_string(), "mounted: {mounts}");
            Ok(())
        },
    )?;
    Ok(())
}

fn everyday(lab: &mut Lab) -> Result<()> {
    let host = lab.host(0)?;
    host.drover_up("")?;
    made_and_used(host)?;
    refused_in_words(host)?;
    snapshots(host)?;
    removed(host)?;
    compose(host)
}

fn made_and_used(host: &Host) -> Result<()> {
    host.run("docker volume create -d drover-vol -o size=64M -o owner=7:8 -o mode=0750 pg")?;
    let owner = with(host, "pg", "stat -c %u:%g:%a /data")?;
    ensure!(owner == "7:8:750", "{owner}");
    with(host, "pg", "echo one > /data/file")?;
    ensure!(with(host, "pg", "cat /data/file")? == "one");
    let full = host.refused(&format!(
        "docker run --rm -v pg:/data {IMAGE} dd if=/dev/zero of=/data/big bs=1M count=100"
    ))?;
    ensure!(full.contains("quota") || full.contains("space"), "{full}");
    with(host, "pg", "rm /data/big")?;
    let status = host.run("docker volume inspect -f '{{json .Status}}' pg")?;
    for part in [
        "\"backend\":\"btrfs\"",
        "\"size\":\"64M\"",
        "\"health\":\"ok\"",
        "\"snapshots\":0",
    ] {
        ensure!(status.contains(part), "{part}: {status}");
    }
    attached(host, 0)?;
    // An image's content is copied into a new volume, with its owner.
    host.run(&format!(
        "docker run --name made {IMAGE} sh -c 'mkdir /seed; echo hello > /seed/file; chown 7:7 /seed'; \
         docker commit made seeded; docker rm made"
    ))?;
    let seeded = "docker run --rm --mount type=volume,source=seed,target=/seed,volume-driver=drover-vol,\
                  volume-opt=size=32M seeded sh -c 'cat /seed/file; stat -c %u /seed'";
    ensure!(host.run(seeded)? == "hello\n7");
    ensure!(host.drover_json("volume inspect seed")?["size"] == 32 << 20);
    Ok(())
}

fn refused_in_words(host: &Host) -> Result<()> {
    for (arguments, said) in [
        ("-o sise=1G x", "did you mean `size`"),
        ("-o size=0 x", "a size of 0"),
        ("-o size=-1 x", "is not a size"),
        ("-o size=1Y x", "is not a size"),
        ("-o size=8000T x", "is more than"),
        ("-o from=nowhere x", "there is no volume `nowhere`"),
        ("-o from=pg@never x", "no snapshot `never`"),
        ("-o fs=xfs x", "leave them out"),
        (
            "-o backup-to=/backups -o backup-password-file=/word x",
            "`backup-password-file=/word` cannot be read",
        ),
        ("../x", "volume name"),
        ("a/b", "volume name"),
    ] {
        let text = host.refused(&format!("docker volume create -d drover-vol {arguments}"))?;
        ensure!(text.contains(said), "{arguments}: {text}");
    }
    let volumes = host.run("docker volume ls -q")?;
    ensure!(volumes == "pg\nseed", "{volumes}");
    Ok(())
}

fn snapshots(host: &Host) -> Result<()> {
    host.run("drover volume snapshot create pg@before")?;
    host.sleeper("user", "-v pg:/data")?;
    host.inside("user", "sh -c 'echo two > /data/file; touch /data/more'")?;
    let differs = host.run("drover volume snapshot diff pg@before")?;
    ensure!(
        differs.contains("+") && differs.contains("more") && differs.contains("file"),
        "{differs}"
    );
    let at = host.run("drover volume snapshot mount pg@before")?;
    ensure!(host.run(&format!("cat {at}/file"))? == "one");
    host.run("drover volume snapshot umount pg@before")?;
    host.run("docker volume create -d drover-vol -o from=pg@before clone")?;
    ensure!(with(host, "clone", "cat /data/file")? == "one");
    let busy = host.refused("drover volume snapshot rollback pg@before")?;
    ensure!(busy.contains("container `user`"), "{busy}");
    // Nothing is detached under a container, also when `docker cp` uses its id.
    host.run("echo three > /tmp/three; docker cp /tmp/three user:/data/three")?;
    attached(host, 1)?;
    ensure!(host.inside("user", "cat /data/three")? == "three");
    host.run("docker rm -f user")?;
    attached(host, 0)?;
    host.run("drover volume snapshot rollback pg@before")?;
    ensure!(with(host, "pg", "cat /data/file; ls /data")? == "one\nfile");
    host.run("drover volume resize pg 128M")?;
    with(
        host,
        "pg",
        "dd if=/dev/zero of=/data/big bs=1M count=100; rm /data/big",
    )?;
    host.run("drover volume snapshot rm pg@before")?;
    let left = host.drover_json("volume snapshot ls pg")?;
    ensure!(
        left["snapshots"].as_array().is_some_and(Vec::is_empty),
        "{left}"
    );
    Ok(())
}

fn removed(host: &Host) -> Result<()> {
    host.run("docker volume rm pg clone seed")?;
    ensure!(host.run("docker volume ls -q")?.is_empty());
    let trash = host.run("drover volume ls --trash")?;
    ensure!(trash.contains("in the trash"), "{trash}");
    // A new one of the name is another, and the old one can come back beside it.
    host.run("docker volume create -d drover-vol pg")?;
    ensure!(with(host, "pg", "ls /data")?.is_empty());
    host.refused("drover volume restore-trash pg")?;
    host.run("drover volume restore-trash pg --as old")?;
    ensure!(with(host, "old", "cat /data/file")? == "one");
    // An anonymous volume goes with its container, for good.
    host.run(&format!(
        "docker run --name anonymous --mount type=volume,target=/data,volume-driver=drover-vol {IMAGE} touch /data/x; \
         docker rm -v anonymous"
    ))?;
    let all = host.run("drover volume ls --trash")?;
    ensure!(all.lines().count() == 5, "{all}");
    host.run("docker volume rm pg old")?;
    attached(host, 0)
}

fn compose(host: &Host) -> Result<()> {
    let project = PROJECT.replace("IMAGE", IMAGE);
    host.run(&format!(
        "mkdir -p /shop; cat > /shop/compose.yaml <<'END'\n{project}\nEND"
    ))?;
    host.run("cd /shop && docker compose up -d")?;
    let taken = host.drover_json("snapshot project shop --name noon")?;
    let snapshots = taken["snapshots"].as_array().cloned().unwrap_or_default();
    ensure!(snapshots.len() == 2, "{taken}");
    let consistent = snapshots
        .iter()
        .all(|it| it["application_consistent"] == true);
    let together = snapshots
        .iter()
        .all(|it| it["group"] == snapshots[0]["group"]);
    ensure!(consistent && together, "{taken}");
    // The command before was run before the snapshot, and the one after it after.
    let at = host.run("drover volume snapshot mount shop_data@noon")?;
    ensure!(host.run(&format!("cat {at}/mark"))? == "before");
    host.run("drover volume snapshot umount shop_data@noon")?;
    host.run(
        "cd /shop && docker compose exec -T db sh -c 'test -e /cache/undone -a ! -e /data/mark'",
    )?;
    host.run("cd /shop && docker compose down -v")?;
    ensure!(host.run("docker volume ls -q")?.is_empty());
    Ok(())
}

fn outlive(lab: &mut Lab) -> Result<()> {
    let host = lab.host(0)?;
    host.drover_up("")?;
    host.run("docker volume create -d drover-vol data")?;
    host.sleeper("user", "-v data:/data --restart always")?;
    let write = "sh -c 'echo x >> /data/log; sync'";
    host.inside("user", write)?;
    // The plugin is killed: the container goes on, and what comes back knows everything.
    host.kill("drover-vol", "KILL")?;
    host.inside("user", write)?;
    wait::until("the plugin is back", wait::seconds(10), || {
        host.run("docker volume inspect data")
    })?;
    attached(host, 1)?;
    host.run("docker restart -t 0 user")?;
    host.inside("user", write)?;
    attached(host, 1)?;
    killed_at_any_moment(host)?;
    // The engine is killed: it never says that it has let go.
    host.stop_engine("KILL")?;
    host.start_engine("")?;
    wait::until("the container is back", wait::seconds(20), || {
        host.inside("user", write)
    })?;
    host.run("docker rm -f user")?;
    attached(host, 0)?;
    ensure!(with(host, "data", "wc -l < /data/log")?.trim() == "4");
    // All of Drover is killed while nothing is attached, and then the host goes.
    host.sleeper("again", "-v data:/data --restart always")?;
    lab.reboot(0)?;
    let host = lab.host(0)?;
    wait::until("the container is back", wait::seconds(30), || {
        host.inside("again", "cat /data/log")
    })?;
    attached(host, 1)?;
    host.run("docker rm -f again; docker volume rm data")?;
    attached(host, 0)?;
    reset(host)
}

/// Killed while volumes are made and removed: each is there or it is not, and nothing else is.
fn killed_at_any_moment(host: &mut Host) -> Result<()> {
    host.start(
        "for i in 1 2 3 4 5 6 7 8 9 10; do docker volume create -d drover-vol -o on-remove=delete -o size=32M v$i; \
         docker volume rm v$i; done",
        "churn.log",
    )?;
    for _ in 0..4 {
        std::thread::sleep(std::time::Duration::from_millis(700));
        host.kill("drover-vol", "KILL")?;
    }
    // The engine asks again what a kill has cut, without saying about what, and gives up after a minute only.
    wait::until("nothing is left half made", wait::seconds(150), || {
        let busy = host.run("ps -ef | grep -c '[d]ocker volume' || true")?;
        ensure!(busy == "0", "{busy} commands still run");
        let known = host.run("docker volume ls -q | grep -c '^v' || true")?;
        let there = host.run("ls /var/lib/drover/volumes/btrfs/volumes | wc -l")?;
        let known: u32 = known.parse()?;
        let there: u32 = there.parse()?;
        ensure!(
            there == known + 1,
            "{there} subvolumes, {known} volumes beside `data`"
        );
        let staged = host.run("ls /var/lib/drover/volumes/btrfs/staging")?;
        ensure!(staged.is_empty(), "{staged}");
        Ok(())
    })?;
    Ok(())
}

/// Volumes stay unless they are to go.
fn reset(host: &mut Host) -> Result<()> {
    host.run("docker volume create -d drover-vol kept")?;
    with(host, "kept", "echo kept > /data/file")?;
    host.run("drover reset --yes")?;
    ensure!(
        host.run("ls /var/lib/drover/volumes/btrfs.img")?
            .ends_with(".img")
    );
    host.drover_up("")?;
    ensure!(with(host, "kept", "cat /data/file")? == "kept");
    host.run("drover reset --yes --volumes")?;
    host.run("test ! -e /var/lib/drover && ! losetup -a | grep -q drover/volumes/btrfs.img")?;
    Ok(())
}
