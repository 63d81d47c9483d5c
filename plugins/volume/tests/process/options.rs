//! Names that no volume can have, and options that are seen only by what is done with the volume.

use std::fs;

use drover_testkit::capability::{Capability, can_test};
use serde_json::json;

use crate::plugin::Plugin;

#[test]
fn a_name_that_no_volume_can_have_is_refused_and_touches_nothing() {
    if !can_test(&[Capability::Btrfs]) {
        return;
    }
    let plugin = Plugin::start("btrfs");
    plugin.create("a.b-c_d", &json!({}));
    let before = plugin.on_backend().volumes;
    let long = "a".repeat(300);
    for name in [
        "", ".", "..", "../x", "a/b", "/etc", "a b", "-x", "ü", "a\0", &long,
    ] {
        let refusal = plugin.refused(name, &json!({}));
        assert!(refusal.contains("name") && refusal.len() < 500, "{refusal}");
        assert!(plugin.find(name).is_none(), "{name}");
        plugin.try_mount(name, "test").unwrap_err();
        // As for any that was never made.
        plugin.try_remove(name).unwrap();
    }
    assert_eq!(plugin.on_backend().volumes, before);
    assert!(plugin.mounts().is_empty(), "{:?}", plugin.mounts());
}

#[test]
fn a_volume_is_read_only_retained_or_deleted_as_it_says() {
    if !can_test(&[Capability::Btrfs]) {
        return;
    }
    let mut plugin = Plugin::prepare("btrfs");
    plugin.has_engine_without_containers();
    plugin.run();
    plugin.create("data", &json!({"on-remove": "retain"}));
    fs::write(plugin.mount("data", "test").join("file"), "one").unwrap();
    let fixed = json!({"from": "data", "read-only": "true", "on-remove": "delete"});
    plugin.create("fixed", &fixed);
    let at = plugin.mount("fixed", "test");
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "one");
    let refusal = fs::write(at.join("file"), "two").unwrap_err();
    assert_eq!(refusal.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    plugin.unmount("fixed", "test");
    plugin.remove("fixed");
    assert_eq!(plugin.on_backend().volumes.len(), 1);

    // It is not there, nor in the trash, and the next of its name is it.
    plugin.unmount("data", "test");
    plugin.remove("data");
    assert!(plugin.find("data").is_none());
    plugin.create("data", &json!({}));
    let at = plugin.mount("data", "again");
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "one");
}
