//! Settings: precedence, faults all at once, the way to a child and back.

use std::ffi::OsString;

use super::*;

fn load(
    toml: &str,
    variables: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> Result<Settings, SettingsError> {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("drover.toml");
    std::fs::write(&config, toml).unwrap();
    let flags = flags.iter().map(|(name, text)| (*name, (*text).to_owned()));
    let overrides = Overrides {
        config: Some(config),
        values: flags.collect(),
    };
    let variables = variables
        .iter()
        .map(|(name, text)| (OsString::from(name), OsString::from(text)));
    read::read(source::gather(&overrides, variables))
}

fn faults(toml: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let error = load(toml, variables, &[]).unwrap_err();
    error.faults().iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_said_is_the_defaults() {
    assert_eq!(load("", &[], &[]).unwrap(), Settings::default());
}

#[test]
fn flags_come_before_variables_before_the_file() {
    let toml =
        "state_dir = '/a'\nrun_dir = '/a'\nplugin_dir = '/a'\n[overlay]\nvxlan_port = 5000\n";
    let variables = [
        ("DROVER_RUN_DIR", "/b"),
        ("DROVER_PLUGIN_DIR", "/b"),
        ("HOME", "/root"),
    ];
    let settings = load(toml, &variables, &[("plugin_dir", "/c")]).unwrap();
    assert_eq!(settings.state_dir, PathBuf::from("/a"));
    assert_eq!(settings.run_dir, PathBuf::from("/b"));
    assert_eq!(settings.plugin_dir, PathBuf::from("/c"));
    assert_eq!(settings.overlay.vxlan_port, 5000);
}

#[test]
fn every_fault_is_reported_at_once_with_its_place() {
    let toml =
        "state_dir = 'var'\nhostname = 'a'\n[pools]\nprefix = 99\n[cluster]\njoin_port = 0\n";
    let found = faults(
        toml,
        &[
            ("DROVER_DOCKER_HOST", "http://x"),
            ("DROVER_STATE_DIRS", "/x"),
        ],
    );
    let all = found.join("\n");
    assert_eq!(found.len(), 6, "{all}");
    assert!(
        all.contains("`state_dir` is `var` in") && all.contains("an absolute path"),
        "{all}"
    );
    assert!(
        all.contains("`hostname` is no setting, did you mean `host_name`"),
        "{all}"
    );
    assert!(
        all.contains("`pools.prefix` is `99`") && all.contains("from 8 to 28"),
        "{all}"
    );
    assert!(all.contains("`cluster.join_port`"), "{all}");
    assert!(
        all.contains("DROVER_DOCKER_HOST; it must be unix:///PATH"),
        "{all}"
    );
    assert!(
        all.contains("`DROVER_STATE_DIRS`") && all.contains("`DROVER_STATE_DIR`"),
        "{all}"
    );
}

#[test]
fn an_unknown_section_and_a_key_in_the_wrong_place_are_refused() {
    assert!(faults("[pool]\nprefix = 16\n", &[])[0].contains("`pool` is no setting"));
    assert!(faults("[log]\nprefix = 16\n", &[])[0].contains("`log.prefix` is no setting"));
    assert!(faults("[encryption]\nport = 65530\n", &[])[0].contains("65528"));
    assert!(faults("vxlan_port = 4\n", &[])[0].contains("did you mean `overlay.vxlan_port`"));
}

#[test]
fn a_file_that_is_missing_or_not_toml_is_a_fault() {
    assert!(faults("state_dir = ", &[])[0].contains("not TOML"));
    let overrides = Overrides {
        config: Some("/does/not/exist.toml".into()),
        ..Overrides::default()
    };
    let error = read::read(source::gather(&overrides, std::iter::empty())).unwrap_err();
    assert!(
        error.to_string().contains("/does/not/exist.toml"),
        "{error}"
    );
}

#[test]
fn an_empty_device_is_an_empty_file_and_the_default_file_may_be_missing() {
    let variables = [(OsString::from("DROVER_CONFIG"), OsString::from("/dev/null"))];
    let gathered = source::gather(&Overrides::default(), variables.into_iter());
    assert_eq!(read::read(gathered).unwrap(), Settings::default());
    if !std::path::Path::new(DEFAULT_CONFIG).exists() {
        let gathered = source::gather(&Overrides::default(), std::iter::empty());
        assert_eq!(read::read(gathered).unwrap(), Settings::default());
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let found = faults(
        "[pools]\ndefault = ['10.0.0.0/20']\nblock_prefix = 12\n",
        &[],
    );
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(faults("[encryption]\nport = 4780\n", &[])[0].contains("vxlan_port"));
    assert!(faults("[cluster]\njoin_port = 4749\n", &[])[0].contains("etcd_client_port"));
    assert!(faults("[pools]\ndefault = ['10.0.0.1/8']\n", &[])[0].contains("host bits"));
}

#[test]
fn a_child_gets_the_same_settings() {
    let toml = "host_name = 'h1'\nadvertise_addr = '192.0.2.1'\n[pools]\nblock_prefix = 26\n\
        default = ['10.0.0.0/9', '172.20.0.0/14']\ndefault_v6 = ['fd00:1::/48']\nquarantine = '5s'\n\
        [overlay]\nencapsulation = 'vxlan'\n[encryption]\nport = 'none'\nlanes = 3\nrotate_after = '90s'\n[cluster]\ntoken_lifetime = '2h'\n[log]\nformat = 'json'\n\
        level = 'debug,drover_store=trace'\n";
    let settings = load(toml, &[], &[]).unwrap();
    let environment = settings.to_environment();
    let variables: Vec<_> = environment
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    assert_eq!(load("", &variables, &[]).unwrap(), settings);
    assert_eq!(settings.cluster.token_lifetime, Duration::from_secs(7200));
}

#[test]
fn every_setting_is_written_and_every_written_one_is_a_setting() {
    let settings = Settings {
        host_name: Some("h1".parse().unwrap()),
        advertise_addr: Some("192.0.2.1".parse().unwrap()),
        pools: PoolSettings {
            block_prefix: Some(24),
            block_prefix_v6: Some(112),
            default_v6: vec!["fd00::/48".parse().unwrap()],
            ..PoolSettings::default()
        },
        encryption: EncryptionSettings {
            lanes: Some(2),
            ..EncryptionSettings::default()
        },
        volumes: VolumeSettings {
            path: Some("/srv/volumes".into()),
            volume_group: Some("data".to_owned()),
            thin_pool: Some("pool".to_owned()),
            loop_size: Some("10G".parse().unwrap()),
            backup_password_file: Some("/etc/drover/backup-password".into()),
            backup_options_file: Some("/etc/drover/backup-options".into()),
            ..VolumeSettings::default()
        },
        ..Settings::default()
    };
    let written: Vec<&str> = write::texts(&settings)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(written, read::NAMES);
}

#[test]
fn the_example_file_says_what_the_defaults_are() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../packaging/drover.toml.example"
    );
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(load(&text, &[], &[]).unwrap(), Settings::default());
    // With the comment marks of the optional settings taken away, everything is there and reads.
    let optional = |line: &str| {
        line.strip_prefix("# ")
            .filter(|rest| rest.contains(" = "))
            .map(str::to_owned)
    };
    let complete: Vec<String> = text
        .lines()
        .map(|line| optional(line).unwrap_or_else(|| line.to_owned()))
        .collect();
    let settings = load(&complete.join("\n"), &[], &[]).unwrap();
    assert_eq!(write::texts(&settings).len(), read::NAMES.len());
}
