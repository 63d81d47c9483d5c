//! What is mounted: folders of the host, volumes, other containers' volumes.

use crate::call::owner_label;
use crate::create::{driver, join};
use crate::facet::{Facet, Fact, Kind, action};
use crate::json::{JsonError, Object};
use crate::reference::canonical;

/// The mounts of a container.
pub(crate) fn of_container(host: &Object, facets: &mut Vec<Facet>) -> Result<(), JsonError> {
    for bind in host.texts("Binds")? {
        facets.extend(read_bind(bind));
    }
    for mount in host.objects("Mounts")? {
        read_mount(mount, facets)?;
    }
    for other in host.texts("VolumesFrom")? {
        let name = other.split(':').next().unwrap_or_default();
        facets.push(join(name.trim_start_matches('/'), "volumes"));
    }
    Ok(())
}

/// `SOURCE:TARGET[:MODE]`. What does not begin with `/` is a volume; a single path is a new volume without a name.
fn read_bind(bind: &str) -> Option<Facet> {
    let (source, rest) = bind.split_once(':')?;
    let mode = rest.split_once(':').map_or("", |(_, mode)| mode);
    let read_only = mode.split(',').any(|word| word == "ro");
    let propagation = ["shared", "slave"];
    let spreads = mode
        .split(',')
        .find(|word| propagation.iter().any(|kind| word.ends_with(kind)));
    Some(mount_facet(source, read_only, spreads.unwrap_or_default()))
}

fn mount_facet(source: &str, read_only: bool, propagation: &str) -> Facet {
    let facet = if source.starts_with('/') {
        Facet::new(action::MOUNT_HOST_PATH, Kind::HostPath, source)
            .with("propagation", Fact::Text(propagation.to_owned()))
    } else {
        Facet::new(action::MOUNT_VOLUME, Kind::Volume, source)
    };
    facet.with("readOnly", Fact::Bool(read_only))
}

/// An entry of `Mounts`, of a container or a service.
pub(crate) fn read_mount(mount: &Object, facets: &mut Vec<Facet>) -> Result<(), JsonError> {
    let source = mount.text("Source")?;
    let read_only = mount.flag("ReadOnly")?;
    match mount.text("Type")? {
        "bind" => {
            let propagation = mount.object("BindOptions")?.text("Propagation")?;
            let spreads = propagation.ends_with("shared") || propagation.ends_with("slave");
            let facet = Facet::new(action::MOUNT_HOST_PATH, Kind::HostPath, source)
                .with("readOnly", Fact::Bool(read_only))
                .with(
                    "propagation",
                    Fact::Text(if spreads {
                        propagation.to_owned()
                    } else {
                        String::new()
                    }),
                );
            facets.push(facet);
        }
        "volume" | "cluster" => {
            let options = mount.object("VolumeOptions")?;
            owner_label(&options.map("Labels")?, facets);
            let config = options.object("DriverConfig")?;
            volume_driver(config.text("Name")?, &config.map("Options")?, facets);
            if !source.is_empty() {
                let facet = Facet::new(action::MOUNT_VOLUME, Kind::Volume, source);
                facets.push(facet.with("readOnly", Fact::Bool(read_only)));
            }
        }
        "image" => facets.push(Facet::new(
            action::RUN_IMAGE,
            Kind::Image,
            canonical(source),
        )),
        "tmpfs" => {}
        other => facets.push(Facet::option("Mounts.Type", other)),
    }
    Ok(())
}

/// The creation of a volume.
pub(crate) fn create_volume(body: &Object) -> Result<Vec<Facet>, JsonError> {
    let name = body.text("Name")?;
    let driver_name = body.text("Driver")?;
    let own = Facet::new("VolumeCreate", Kind::Volume, name)
        .with("driver", Fact::Text(driver_name.to_owned()));
    let mut facets = vec![own];
    owner_label(&body.map("Labels")?, &mut facets);
    volume_driver(driver_name, &body.map("DriverOpts")?, &mut facets);
    for (key, value) in body.members() {
        let known = ["Name", "Driver", "DriverOpts", "Labels"];
        if !known.iter().any(|name| crate::json::names(key, name)) && !value.is_zero() {
            facets.push(Facet::field("Volume.", key, value.brief()));
        }
    }
    Ok(facets)
}

/// What a volume's driver and its options reach.
fn volume_driver(name: &str, options: &[(&str, &str)], facets: &mut Vec<Facet>) {
    if !name.is_empty() {
        facets.push(driver("volume", name));
    }
    if !matches!(name, "" | "local") {
        return;
    }
    if let Some(device) = local_volume_device(options.iter().copied()) {
        if device.starts_with('/') {
            let facet = Facet::new(action::MOUNT_HOST_PATH, Kind::HostPath, device)
                .with("readOnly", Fact::Bool(false))
                .with("propagation", Fact::Text(String::new()));
            facets.push(facet);
        } else {
            facets.push(Facet::new(action::USE_DEVICE, Kind::Device, device));
        }
    }
    for (key, value) in options {
        // The size of a volume reaches nothing; `type` and `o` without a device do.
        if !matches!(*key, "device" | "size") {
            facets.push(Facet::option(format!("volume.{key}"), *value));
        }
    }
}

/// The device that a volume of the driver `local` is mounted from: a path of the host, or a remote file system.
pub fn local_volume_device<'a>(
    options: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Option<&'a str> {
    options
        .into_iter()
        .find(|(key, value)| *key == "device" && !value.is_empty())
        .map(|(_, value)| value)
}
