//! What stands under the options of a command: examples and exit codes.

/// Under `drover --help`.
pub(crate) const DROVER: &str = "\
Getting started, as root:
  drover up                                   run Drover on this host; leave it running
  docker network create -d drover-net --ipam-driver drover-ipam app

Two hosts:
  drover init                                 on the first; prints the line for the second
  drover join --token TOKEN 192.0.2.1:4748    on the second

When something is wrong:
  drover doctor

Each option under \"Where things are\", and every other setting, can also be given as a DROVER_*
variable or in the configuration file. `drover help exit-codes` lists the exit codes.";

/// `drover help exit-codes`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes

   0   done; `doctor`: no errors found
   1   refused as things are (the message says why); `doctor`: errors found; `dns lookup`: no such
       name
  64   the command line is wrong
  69   something that is needed does not answer: Drover, the engine, the cluster
  70   a bug
  77   a permission is missing: run it as root
  78   the configuration is wrong

`drover up` restarts a process of Drover that ends with 75 at once.";

/// Under `drover up --help`.
pub(crate) const UP: &str = "\
Prints the line `drover is up` when everything answers. SIGTERM or Ctrl-C stops it and leaves the
data path in place: containers keep their networks. No service manager is needed.

Examples:
  drover up
  drover up --host-name web-1 --advertise-addr 192.0.2.1
  DROVER_LOG_LEVEL=debug drover up";

/// Under `drover init --help`.
pub(crate) const INIT: &str = "\
Starts etcd (Debian: apt install etcd-server) with certificates of the cluster's own, and carries
over what this host has. On a host of a cluster: prints another line. Each token is good for one
host and for an hour. The line alone goes to standard output.

Examples:
  drover init
  drover init --advertise-addr 192.0.2.1
  drover init --etcd-endpoints https://192.0.2.7:2379,https://192.0.2.8:2379";

/// Under `drover join --help`.
pub(crate) const JOIN: &str = "\
The token and the address are what `drover init` printed on a host of the cluster. The token can
also be given as DROVER_JOIN_TOKEN, which other users of this host cannot see.

Example:
  drover join --token TOKEN 192.0.2.1:4748";

/// Under `drover leave --help`.
pub(crate) const LEAVE: &str = "\
The host goes on alone with the embedded store. What it held in the cluster is released.";

/// Under `drover host rm --help`.
pub(crate) const HOST_RM: &str = "\
For a host that will not come back. Should it come back after all, it gives out nothing new until
`drover leave` was run on it.

Example:
  drover host rm web-2";

/// Under `drover status --help`.
pub(crate) const STATUS: &str = "\
Ends with 69 when the coordinator does not answer.";

/// Under `drover dns ls --help`.
pub(crate) const DNS_LS: &str = "\
GIVEN tells who is handed out now. Ids of containers are names, too; only --json lists them.

Example:
  drover dns ls --network app_default";

/// Under `drover dns lookup --help`.
pub(crate) const DNS_LOOKUP: &str = "\
Nothing is sent. Ends with 1 when Drover has no such name: then it is up to Docker's own resolver.

Examples:
  drover dns lookup web --network app_default
  drover dns lookup web --from app-worker-1";

/// Under `drover dns metrics --help`.
pub(crate) const DNS_METRICS: &str = "\
Counted since the name service began. P50 and P99: microseconds, the upper ends of ranges.
STALE/CUT: answers that may have been out of date, and answers too long for a datagram.
REFUSED: queries that were no DNS, too many at once, or not answered by Docker's resolver.

The same in Prometheus' text format:
  curl --unix-socket /run/drover/names.sock http://localhost/metrics";

/// Under `drover doctor --help`.
pub(crate) const DOCTOR: &str = "\
Changes nothing. Prints `no faults found` and what was checked, or each fault with its remedy.
Ends with 1 when there are errors; warnings alone end with 0.";

/// Under `drover reset --help`.
pub(crate) const RESET: &str = "\
Stops when containers run on Drover networks, and names them. Otherwise: leaves the cluster, stops
`drover up`, removes Drover's networks from the engine, its devices and filters from the kernel,
and its state, run and socket files. Volumes stay, unless --volumes is given. Docker and everything
else stays as it is.";

pub(crate) const AUTHZ: &str = "\
Commands:
  socket --role ROLE PATH  Serve the engine's API at PATH; it is served again after a reboot
  socket --remove PATH     Stop serving it
  sockets                  List them, and whether they are served

`drover authz socket --help` tells more: the file's owner, group and mode, and the user's name.

Examples:
  drover authz socket --role traefik-reader /run/drover-sockets/traefik/docker.sock
  drover authz socket --role developer --user ann --owner ann /run/drover-sockets/ann/docker.sock";

/// Under `drover policy --help`.
pub(crate) const POLICY: &str = "\
Commands:
  check [FILE|DIR]       Whether policies can be put in force
  test FILE|DIR CASES    Whether they decide cases as expected
  explain REQUEST [DIR]  What they decide, by which rule and fact
  learn [LOG]...         Rules that permit what monitor mode has let through
  schema                 The types, facts and actions that policies may name

DIR is [authorization] policy_dir when it is not given. Exit code 1: a fault, a failed case, a denial.";

/// Under `drover volume restore-trash --help`.
pub(crate) const RESTORE_TRASH: &str = "\
A volume that was removed lies in the trash for three days, unless the setting
`volumes.trash_window` says otherwise, or it was created with `-o on-remove=delete`.
`drover volume ls --trash` lists what is there.

Examples:
  drover volume restore-trash pg
  drover volume restore-trash pg --as pg-yesterday";

/// Under `drover volume snapshot create --help`.
pub(crate) const SNAPSHOT_CREATE: &str = "\
Snapshots of several volumes are taken at one instant; they have one name.

Examples:
  drover volume snapshot create pg@before-upgrade
  drover volume snapshot create pg@noon redis@noon";

/// Under `drover volume snapshot rollback --help`.
pub(crate) const ROLLBACK: &str = "\
Refused while a container runs with the volume. What is on the volume now is lost, unless there is
a snapshot of it. The snapshot stays.";

/// Under `drover snapshot project --help`.
pub(crate) const SNAPSHOT_PROJECT: &str = "\
Takes in every volume of the Compose project with `driver: drover-vol`, and asks the programs that use
them to write everything down first, where their containers have the labels `drover.snapshot.pre`
and `drover.snapshot.post`, or `drover.snapshot.preset`.

Example:
  drover snapshot project shop --name before-upgrade";

/// Under `drover backup create --help`.
pub(crate) const BACKUP_CREATE: &str = "\
Only what the repository does not have yet is sent. A backup that was interrupted goes on where it
was. Of a volume of drover-vol a snapshot is backed up, and removed. What `--source` names must not
change meanwhile: give a snapshot of what is in use. restic reads what this writes.

Examples:
  drover backup create pg --to /backups --password-file /etc/drover/backup-password
  drover backup create disk --source /dev/vg/disk-snapshot --to s3://backups/web \\
      --password-file /etc/drover/backup-password --options-file /etc/drover/s3 --init";

/// Under `drover backup ls --help`.
pub(crate) const BACKUP_LS: &str = "\
`--all` asks the cluster and needs no repository: the latest backup of each volume that drover-vol of
any host has made, to each repository. A host that was removed stays listed: its backups are there.

Examples:
  drover backup ls pg --from /backups --password-file /etc/drover/backup-password
  drover backup ls --all";

/// Under `drover backup restore --help`.
pub(crate) const BACKUP_RESTORE: &str = "\
Nothing that is there is overwritten. Owners, modes, links, attributes and holes come back. A path
within the image of a device is found by mounting the image, which takes room beside the target.

Examples:
  drover backup restore pg --target /srv/pg --from /backups --password-file FILE
  drover backup restore pg@2026-05-01 --path data/pg_hba.conf --target hba.conf --from /backups ...
  drover backup restore disk --image --target /dev/vg/disk --from sftp://backup@nas/volumes ...";

/// Under `drover backup forget --help`.
pub(crate) const BACKUP_FORGET: &str = "\
`24h 7d 4w 12m` keeps the newest backup of each of the last 24 hours, 7 days, 4 weeks and 12 months
that have one; a number alone keeps the newest so many. Times are in UTC.

Example:
  drover backup forget pg --keep '24h 7d 4w 12m' --from /backups --password-file FILE --dry-run";
