//! Real databases on volumes: what a snapshot, a clone and a backup of them hold.

use std::fs::File;

use anyhow::{Context, Result, ensure};
use integration_tests::cache;
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "postgres_under_load_is_whole_in_snapshots_and_backups",
        setup: Setup::Engines(1),
        needs: &[],
        run: postgres,
    },
    Scenario {
        name: "presets_have_databases_write_everything_down",
        setup: Setup::Engines(1),
        needs: &[],
        run: presets,
    },
];

/// Debian's programs, in PostgreSQL's own folder.
const BIN: &str = "/usr/lib/postgresql/15/bin";

/// Gives the engine the image that `integration-tests/make-image` has built.
fn import(host: &Host) -> Result<()> {
    let archive = cache::directory().join("images/databases.tar");
    let archive = File::open(&archive).with_context(|| {
        let path = archive.display();
        format!("no image of databases at {path}: run integration-tests/make-image")
    })?;
    let mut import = host.command("docker import - databases", wait::seconds(240))?;
    let done = import.stdin(archive).output()?;
    ensure!(
        done.status.success(),
        "docker import: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(())
}

/// A statement in a container's PostgreSQL, its answer bare.
fn psql(host: &Host, container: &str, statement: &str) -> Result<String> {
    host.run(&format!(
        "docker exec {container} psql -X -h /tmp -At -v ON_ERROR_STOP=1 -c \"{statement}\""
    ))
}

/// Starts PostgreSQL on a volume, which has a database or is given one.
fn serve(host: &Host, name: &str, volume: &str) -> Result<()> {
    host.run(&format!(
        "docker run -d --name {name} --user postgres -v {volume}:/data --shm-size 128m -e PGHOST=/tmp \
         -l drover.snapshot.preset=postgres databases \
         sh -c 'test -e /data/db || {BIN}/initdb -D /data/db -A trust; exec {BIN}/postgres -D /data/db -k /tmp'"
    ))?;
    wait::until(&format!("{name} answers"), wait::seconds(60), || {
        psql(host, name, "SELECT 1")
    })?;
    Ok(())
}

fn postgres(lab: &mut Lab) -> Result<()> {
    let host = lab.host(0)?;
    host.drover_up("")?;
    import(host)?;
    let owner =
        host.run("docker run --rm databases sh -c 'echo $(id -u postgres):$(id -g postgres)'")?;
    host.run("umask 077; echo correct horse > /root/password")?;
    let place = "-o backup-to=/var/lib/repository -o backup-password-file=/root/password";
    let options = format!("-o owner={owner} -o mode=0700");
    host.run(&format!(
        "docker volume create -d drover-vol {options} {place} pg"
    ))?;
    serve(host, "pg", "pg")?;
    host.run(&format!(
        "docker exec pg {BIN}/pgbench -h /tmp -q -i -s 2 postgres"
    ))?;
    psql(host, "pg", "CREATE TABLE said (id bigint PRIMARY KEY)")?;
    // What is acknowledged is noted beside the volume, after the answer.
    host.run(
        "docker exec -d pg sh -c 'i=0; while i=$((i + 1)); do psql -X -h /tmp -q -c \"INSERT INTO said VALUES ($i)\" || exit; \
         echo $i > /tmp/said.new; mv /tmp/said.new /tmp/said; done'",
    )?;
    host.run(&format!(
        "docker exec -d pg {BIN}/pgbench -h /tmp -c 4 -j 2 -T 600 postgres"
    ))?;
    wait::until("the first answers", wait::seconds(30), || {
        host.run("docker exec pg cat /tmp/said")
    })?;
    let mut taken = Vec::new();
    for name in ["one", "two", "three"] {
        std::thread::sleep(std::time::Duration::from_secs(2));
        let said = said(host)?;
        host.run(&format!("drover volume snapshot create pg@{name}"))?;
        taken.push((format!("-o from=pg@{name}"), said));
    }
    let before = said(host)?;
    host.run(
        "drover backup create pg --to /var/lib/repository --password-file /root/password --init",
    )?;
    taken.push((format!("-o from-backup=pg {place}"), before));
    let after = said(host)?;
    ensure!(
        after > before,
        "nothing was written while the backup was made"
    );
    // Killed under load, and then its volume as it is.
    let before = said(host)?;
    host.run("docker kill pg")?;
    taken.push(("-o from=pg".to_owned(), before));
    let mut told = Vec::new();
    for (source, said) in taken {
        holds(host, &source, said).with_context(|| source.clone())?;
        told.push(format!("{source}: {said} acknowledged transactions"));
    }
    host.run("docker rm pg")?;
    serve(host, "pg", "pg")?;
    for line in told {
        lab.report(&line);
    }
    Ok(())
}

/// The latest number whose insertion was acknowledged.
fn said(host: &Host) -> Result<u64> {
    Ok(host.run("docker exec pg cat /tmp/said")?.parse()?)
}

/// A volume of this source has a sound database, with all that had been acknowledged.
fn holds(host: &Host, source: &str, said: u64) -> Result<()> {
    host.run(&format!("docker volume create -d drover-vol {source} copy"))?;
    serve(host, "copy", "copy")?;
    let there = psql(host, "copy", "SELECT count(*), max(id) FROM said")?;
    let (count, last) = there.split_once('|').context("no count")?;
    let (count, last): (u64, u64) = (count.parse()?, last.parse()?);
    ensure!(
        count == last && last >= said,
        "{count} rows up to {last}, {said} acknowledged"
    );
    // Every transaction of pgbench changes all of these by the same.
    let sums = psql(
        host,
        "copy",
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(tbalance) FROM pgbench_tellers), \
         (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history), \
         (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM pgbench_branches), \
         (SELECT count(*) > 0 FROM pgbench_history)",
    )?;
    ensure!(sums == "t|t|t|t", "{sums}");
    host.run(&format!(
        "docker exec copy {BIN}/pg_amcheck -h /tmp --install-missing --heapallindexed --parent-check -d postgres"
    ))?;
    host.run("docker rm -f copy; docker volume rm copy")?;
    Ok(())
}

/// A database that a preset is for.
struct Database {
    preset: &'static str,
    /// Starts it on `/data`.
    serve: &'static str,
    /// Writes a row, once it answers.
    write: &'static str,
    /// Reads the row of a copy that is on `/data`, with nothing but the files.
    read: &'static str,
}

const DATABASES: &[Database] = &[
    Database {
        preset: "mysql",
        serve: "mkdir -p /run/mysqld; chown mysql /data /run/mysqld; test -e /data/mysql || mysql_install_db --user=mysql --datadir=/data > /tmp/log; \
                exec mariadbd --user=mysql --datadir=/data",
        write: "mysql -u root -e 'CREATE DATABASE shop; CREATE TABLE shop.said (id INT) ENGINE=MyISAM; INSERT INTO shop.said VALUES (7)'",
        read: "chown mysql /run/mysqld; mariadbd --user=mysql --datadir=/data & for i in $(seq 100); do sleep 0.3; \
               mysql -u root -N -e 'CHECK TABLE shop.said; SELECT id FROM shop.said' && exit; done; exit 1",
    },
    Database {
        preset: "redis",
        serve: "exec redis-server --dir /data --save ''",
        write: "test \"$(redis-cli SET said 7)\" = OK",
        read: "redis-server --dir /data --save '' > /tmp/log & for i in $(seq 100); do sleep 0.1; test \"$(redis-cli GET said)\" = 7 && \
               echo 7 && exit; done; exit 1",
    },
    Database {
        preset: "sqlite",
        // A connection that stays keeps the log beside the file.
        serve: "mkfifo /tmp/f; sqlite3 /data/shop.db < /tmp/f & exec 3> /tmp/f; echo 'PRAGMA journal_mode=WAL; CREATE TABLE said (id INT); \
                INSERT INTO said VALUES (7);' >&3; sleep 1000000",
        write: "test \"$(sqlite3 /data/shop.db 'SELECT id FROM said')\" = 7 -a -s /data/shop.db-wal",
        // Without its log: all is in the file.
        read: "rm -f /data/*-wal /data/*-shm; sqlite3 /data/shop.db 'PRAGMA integrity_check; SELECT id FROM said'",
    },
];

fn presets(lab: &mut Lab) -> Result<()> {
    let host = lab.host(0)?;
    host.drover_up("")?;
    import(host)?;
    for database in DATABASES {
        preset(host, database).with_context(|| database.preset)?;
    }
    Ok(())
}

fn preset(host: &Host, database: &Database) -> Result<()> {
    let name = database.preset;
    let script = |text: &str| text.replace('\'', "'\\''");
    host.run(&format!(
        "docker run -d --name {name} --mount type=volume,source={name},target=/data,volume-driver=drover-vol \
         -l drover.snapshot.preset={name} databases sh -c '{}'",
        script(database.serve)
    ))?;
    wait::until("a row is written", wait::seconds(60), || {
        host.run(&format!(
            "docker exec {name} sh -c '{}'",
            script(database.write)
        ))
    })?;
    let taken = host.drover_json(&format!("volume snapshot create {name}@s"))?;
    let complaints = taken["complaints"].as_array().is_none_or(Vec::is_empty);
    let consistent = taken["snapshots"][0]["application_consistent"] == true;
    ensure!(complaints && consistent, "{taken}");
    host.run(&format!(
        "docker rm -f {name}; docker volume create -d drover-vol -o from={name}@s copy"
    ))?;
    let read = host.run(&format!(
        "docker run --rm -v copy:/data databases sh -c 'mkdir -p /run/mysqld; {}'",
        script(database.read)
    ))?;
    ensure!(read.lines().last() == Some("7"), "{read}");
    host.run(&format!("docker volume rm copy {name}"))?;
    Ok(())
}
