//! What the creation or change of a container asks for.
//!
//! Engines read a host configuration both from `HostConfig` and, for clients of old, from the top of the body; so does this.

use crate::call::owner_label;
use crate::facet::{Facet, Fact, Facts, Kind, action};
use crate::json::{Json, JsonError, Object, names};
use crate::mount;
use crate::network;
use crate::reference::canonical;

/// Fields of a container's configuration that reach nothing beyond it.
const HARMLESS: &[&str] = &[
    "ArgsEscaped",
    "AttachStderr",
    "AttachStdin",
    "AttachStdout",
    "Cmd",
    "Cpuset",
    "Domainname",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Hostname",
    "MacAddress",
    "NetworkDisabled",
    "OnBuild",
    "OpenStdin",
    "PortSpecs",
    "Shell",
    "StdinOnce",
    "StopSignal",
    "StopTimeout",
    "Tty",
    "Volumes",
    "WorkingDir",
];

/// Fields of a host configuration that reach nothing beyond the container, or only take from it.
const HARMLESS_ON_HOST: &[&str] = &[
    "AutoRemove",
    "BlkioDeviceReadBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceWriteIOps",
    "BlkioWeight",
    "BlkioWeightDevice",
    "CapDrop",
    "ConsoleSize",
    "ContainerIDFile",
    "CpuCount",
    "CpuPercent",
    "CpuPeriod",
    "CpuQuota",
    "CpuShares",
    "CpusetCpus",
    "CpusetMems",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "ExtraHosts",
    "GroupAdd",
    "IOMaximumBandwidth",
    "IOMaximumIOps",
    "Init",
    "KernelMemory",
    "KernelMemoryTCP",
    "Memory",
    "MemoryReservation",
    "MemorySwap",
    "MemorySwappiness",
    "NanoCpus",
    "PidsLimit",
    "ReadonlyRootfs",
    "ShmSize",
    "StorageOpt",
    "Tmpfs",
    "Ulimits",
];

/// Fields that are read here.
const READ: &[&str] = &["HostConfig", "Image", "Labels", "NetworkingConfig", "User"];

/// Fields of a host configuration that are read here.
const READ_ON_HOST: &[&str] = &[
    "Binds",
    "CapAdd",
    "CgroupnsMode",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Devices",
    "IpcMode",
    "Isolation",
    "Links",
    "LogConfig",
    "Mounts",
    "NetworkMode",
    "PidMode",
    "PortBindings",
    "Privileged",
    "PublishAllPorts",
    "RestartPolicy",
    "Runtime",
    "SecurityOpt",
    "Sysctls",
    "UTSMode",
    "UsernsMode",
    "VolumeDriver",
    "VolumesFrom",
];

/// Fields of which an empty list is not the same as none: it lays the host open.
const EMPTY_COUNTS: &[&str] = &["MaskedPaths", "ReadonlyPaths"];

/// The creation of a container.
pub(crate) fn container(mut own: Facet, body: &Object) -> Result<Vec<Facet>, JsonError> {
    let mut facets = Vec::new();
    let image = canonical(body.text("Image")?);
    facets.push(Facet::new(action::RUN_IMAGE, Kind::Image, image.clone()));
    own.facts.insert("image", Fact::Text(image));
    own.facts
        .insert("runAs", Fact::Text(body.text("User")?.to_owned()));
    let labels = body.map("Labels")?;
    owner_label(&labels, &mut facets);
    let texts = labels.iter().map(|(key, value)| format!("{key}={value}"));
    own.facts.insert("labels", Fact::Texts(texts.collect()));

    let host = body.object("HostConfig")?;
    unknown(
        body,
        "",
        &[HARMLESS, HARMLESS_ON_HOST, READ, READ_ON_HOST],
        &mut facets,
    );
    unknown(
        host,
        "HostConfig.",
        &[HARMLESS_ON_HOST, READ_ON_HOST],
        &mut facets,
    );
    host_config(host, &mut own.facts, &mut facets)?;
    let outer = READ_ON_HOST.iter().any(|name| body.has(name));
    let mut on_network = host.has("NetworkMode");
    if outer {
        let mut facts = Facts::new();
        host_config(body, &mut facts, &mut facets)?;
        on_network |= body.has("NetworkMode");
    }
    if !on_network && !body.flag("NetworkDisabled")? {
        network_mode("default", &mut facets);
    }
    for (name, settings) in body
        .object("NetworkingConfig")?
        .object("EndpointsConfig")?
        .members()
    {
        network::endpoint(name, settings, &mut facets)?;
    }
    summarize(&mut own.facts, &facets);
    facets.insert(0, own);
    Ok(facets)
}

/// `docker update`.
pub(crate) fn update(mut own: Facet, body: &Object) -> Result<Vec<Facet>, JsonError> {
    let mut facets = Vec::new();
    unknown(
        body,
        "HostConfig.",
        &[HARMLESS_ON_HOST, READ_ON_HOST],
        &mut facets,
    );
    host_config(body, &mut own.facts, &mut facets)?;
    // It changes none of what these say, and says so of all that is not sent.
    summarize(&mut own.facts, &facets);
    facets.insert(0, own);
    Ok(facets)
}

/// `docker exec`.
pub(crate) fn exec(own: Facet, body: &Object) -> Result<Vec<Facet>, JsonError> {
    const KNOWN: &[&str] = &[
        "AttachStderr",
        "AttachStdin",
        "AttachStdout",
        "Cmd",
        "ConsoleSize",
        "Container",
        "Detach",
        "DetachKeys",
        "Env",
        "Privileged",
        "Tty",
        "User",
        "WorkingDir",
    ];
    let privileged = body.flag("Privileged")?;
    let run_as = body.text("User")?.to_owned();
    let own = own
        .with("privileged", Fact::Bool(privileged))
        .with("runAs", Fact::Text(run_as));
    let mut facets = vec![own];
    if privileged {
        facets.push(privileged_facet());
    }
    unknown(body, "Exec.", &[KNOWN], &mut facets);
    Ok(facets)
}

fn privileged_facet() -> Facet {
    Facet::new(action::RUN_PRIVILEGED, Kind::Setting, "privileged")
}

/// Every field that is neither known to be harmless nor read, and says something.
fn unknown(object: &Object, prefix: &str, known: &[&[&str]], facets: &mut Vec<Facet>) {
    for (key, value) in object.members() {
        let is_known = known
            .iter()
            .any(|list| list.iter().any(|name| names(key, name)));
        let counts = EMPTY_COUNTS.iter().any(|name| names(key, name)) && *value != Json::Null;
        if !is_known && (counts || !value.is_zero()) {
            facets.push(Facet::field(prefix, key, value.brief()));
        }
    }
}

fn host_config(host: &Object, facts: &mut Facts, facets: &mut Vec<Facet>) -> Result<(), JsonError> {
    if host.flag("Privileged")? {
        facets.push(privileged_facet());
    }
    for capability in host.texts("CapAdd")? {
        let name = capability.trim().to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        facets.push(Facet::new(action::ADD_CAPABILITY, Kind::Capability, name));
    }
    for option in host.texts("SecurityOpt")? {
        if !matches!(
            option,
            "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true"
        ) {
            let brief: String = option.chars().take(120).collect();
            facets.push(Facet::new(
                action::SET_SECURITY_OPTION,
                Kind::Setting,
                brief,
            ));
        }
    }
    for (name, value) in host.map("Sysctls")? {
        let facet = Facet::new(action::SET_SYSCTL, Kind::Setting, name);
        facets.push(facet.with("value", Fact::Text(value.to_owned())));
    }
    modes(host, facets)?;
    devices(host, facets)?;
    mount::of_container(host, facets)?;
    ports(host, facets)?;
    drivers(host, facts, facets)
}

/// Whose namespaces it is in.
fn modes(host: &Object, facets: &mut Vec<Facet>) -> Result<(), JsonError> {
    const MODES: &[(&str, &str, &[&str])] = &[
        ("PidMode", "pid", &[""]),
        ("IpcMode", "ipc", &["", "none", "private", "shareable"]),
        ("UTSMode", "uts", &[""]),
        ("UsernsMode", "user", &["", "private"]),
        ("CgroupnsMode", "cgroup", &["", "private"]),
        ("Isolation", "isolation", &["", "default"]),
    ];
    for (field, namespace, own) in MODES {
        let mode = host.text(field)?;
        if own.contains(&mode) {
            continue;
        }
        let facet = match mode.split_once(':') {
            None if mode == "host" => {
                Facet::new(action::JOIN_HOST_NAMESPACE, Kind::Namespace, *namespace)
            }
            Some(("container", other)) => join(other, namespace),
            _ => Facet::option(format!("HostConfig.{field}"), mode),
        };
        facets.push(facet);
    }
    if host.has("NetworkMode") {
        network_mode(host.text("NetworkMode")?, facets);
    }
    for link in host.texts("Links")? {
        let other = link.split(':').next().unwrap_or_default();
        facets.push(join(other.trim_start_matches('/'), "link"));
    }
    Ok(())
}

/// Something of another container's: a namespace, its volumes, its environment.
pub(crate) fn join(container: &str, what: &str) -> Facet {
    let facet = Facet::new(action::JOIN_CONTAINER, Kind::Container, container);
    facet.with("value", Fact::Text(what.to_owned()))
}

/// A network mode, of a container or a build.
pub(crate) fn network_mode(mode: &str, facets: &mut Vec<Facet>) {
    match mode {
        "none" => {}
        "host" => facets.push(Facet::new(
            action::JOIN_HOST_NAMESPACE,
            Kind::Namespace,
            "network",
        )),
        "" | "default" | "bridge" => {
            facets.push(Facet::new(action::USE_NETWORK, Kind::Network, "bridge"));
        }
        mode => match mode.split_once(':') {
            Some(("container", other)) => facets.push(join(other, "network")),
            _ => facets.push(Facet::new(action::USE_NETWORK, Kind::Network, mode)),
        },
    }
}

fn devices(host: &Object, facets: &mut Vec<Facet>) -> Result<(), JsonError> {
    let device = |id: &str| Facet::new(action::USE_DEVICE, Kind::Device, id);
    for each in host.objects("Devices")? {
        let facet = device(each.text("PathOnHost")?);
        let permissions = each.text("CgroupPermissions")?.to_owned();
        facets.push(facet.with("value", Fact::Text(permissions)));
    }
    for rule in host.texts("DeviceCgroupRules")? {
        facets.push(device(&format!("cgroup:{rule}")));
    }
    for request in host.objects("DeviceRequests")? {
        let driver = request.text("Driver")?;
        let ids = request.texts("DeviceIDs")?.join(",");
        facets.push(device(&format!("request:{driver}:{ids}")));
    }
    Ok(())
}

fn ports(host: &Object, facets: &mut Vec<Facet>) -> Result<(), JsonError> {
    for (port, bindings) in host.object("PortBindings")?.members() {
        let protocol = port.split_once('/').map_or("tcp", |(_, protocol)| protocol);
        let Json::List(bindings) = bindings else {
            if *bindings == Json::Null {
                continue;
            }
            return Err(crate::json::wrong("PortBindings", "lists"));
        };
        for binding in bindings {
            let Json::Object(binding) = binding else {
                return Err(crate::json::wrong("PortBindings", "lists of objects"));
            };
            let address = binding.text("HostIp")?.to_owned();
            facets.push(publish(binding.text("HostPort")?, protocol, &address));
        }
    }
    if host.flag("PublishAllPorts")? {
        facets.push(publish("", "tcp", ""));
    }
    Ok(())
}

/// A port of the host. A range counts by its first port.
pub(crate) fn publish(port: &str, protocol: &str, address: &str) -> Facet {
    let number = port.split('-').next().unwrap_or_default().trim();
    let number: i64 = number.parse().unwrap_or_default();
    let shown = if port.is_empty() { "0" } else { port };
    Facet::new(
        action::PUBLISH_PORT,
        Kind::Port,
        format!("{shown}/{protocol}"),
    )
    .with("port", Fact::Long(number))
    .with("value", Fact::Text(address.to_owned()))
}

fn drivers(host: &Object, facts: &mut Facts, facets: &mut Vec<Facet>) -> Result<(), JsonError> {
    let runtime = host.text("Runtime")?;
    if !runtime.is_empty() {
        facets.push(Facet::new(action::USE_RUNTIME, Kind::Setting, runtime));
    }
    let logs = host.object("LogConfig")?.text("Type")?;
    if !logs.is_empty() {
        facets.push(driver("log", logs));
    }
    let volumes = host.text("VolumeDriver")?;
    if !volumes.is_empty() {
        facets.push(driver("volume", volumes));
    }
    let restart = host.object("RestartPolicy")?.text("Name")?;
    facts.insert("restartPolicy", Fact::Text(restart.to_owned()));
    facts.insert(
        "networkMode",
        Fact::Text(host.text("NetworkMode")?.to_owned()),
    );
    facts.insert("runtime", Fact::Text(runtime.to_owned()));
    Ok(())
}

/// A driver of something.
pub(crate) fn driver(of: &str, name: &str) -> Facet {
    Facet::new(action::USE_DRIVER, Kind::Driver, format!("{of}:{name}"))
}

/// The facets once more, as facts of the operation: for policies that look at all of them together.
fn summarize(facts: &mut Facts, facets: &[Facet]) {
    let all = |action: &str| {
        let these = facets.iter().filter(|facet| facet.action == action);
        Fact::Texts(these.map(|facet| facet.resource.id.clone()).collect())
    };
    let privileged = facets
        .iter()
        .any(|facet| facet.action == action::RUN_PRIVILEGED);
    facts.insert("privileged", Fact::Bool(privileged));
    facts.insert("capabilities", all(action::ADD_CAPABILITY));
    facts.insert("hostNamespaces", all(action::JOIN_HOST_NAMESPACE));
    facts.insert("securityOptions", all(action::SET_SECURITY_OPTION));
    facts.insert("devices", all(action::USE_DEVICE));
    facts.insert("binds", all(action::MOUNT_HOST_PATH));
    facts.insert("volumes", all(action::MOUNT_VOLUME));
    facts.insert("ports", all(action::PUBLISH_PORT));
    facts.insert("sysctls", all(action::SET_SYSCTL));
    facts.insert("networks", all(action::USE_NETWORK));
    facts.insert("options", all(action::SET_OPTION));
}
