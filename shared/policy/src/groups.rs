//! Which operations belong together: the groups of actions that policies name.

/// The groups, with what each is.
pub(crate) const GROUPS: &[&str] = &[
    "Read", "Inspect", "Contents", "Run", "Build", "Pull", "Admin", "Ask",
];

/// The group of an operation.
pub(crate) fn group(operation: &str) -> &'static str {
    match operation {
        // What tells nothing of the inside of a container.
        "SystemPing"
        | "SystemVersion"
        | "SystemInfo"
        | "SystemEvents"
        | "SystemDataUsage"
        | "ContainerList"
        | "ImageList"
        | "ImageSearch"
        | "NetworkList"
        | "VolumeList"
        | "ImageInspect"
        | "ImageHistory"
        | "ImageAttestations"
        | "DistributionInspect"
        | "SystemAuth" => "Read",
        // One object in full; a container's environment is among it.
        "ContainerInspect"
        | "ContainerStats"
        | "ContainerTop"
        | "ContainerChanges"
        | "ContainerArchiveInfo"
        | "NetworkInspect"
        | "VolumeInspect"
        | "ExecInspect"
        | "CheckpointList" => "Inspect",
        // What a container has written, and files.
        "ContainerLogs" | "ContainerArchive" | "ContainerExport" | "ImageGet" | "ImageGetAll" => {
            "Contents"
        }
        "ContainerCreate"
        | "ContainerStart"
        | "ContainerStop"
        | "ContainerRestart"
        | "ContainerKill"
        | "ContainerPause"
        | "ContainerUnpause"
        | "ContainerWait"
        | "ContainerResize"
        | "ContainerRename"
        | "ContainerUpdate"
        | "ContainerDelete"
        | "ContainerAttach"
        | "ContainerAttachWebsocket"
        | "ContainerExec"
        | "ExecStart"
        | "ExecResize"
        | "PutContainerArchive"
        | "NetworkCreate"
        | "NetworkDelete"
        | "NetworkConnect"
        | "NetworkDisconnect"
        | "VolumeCreate"
        | "VolumeDelete" => "Run",
        "ImageBuild" | "BuildCancel" | "Session" | "Grpc" | "ImageTag" | "ImageCommit"
        | "ImagePush" | "ImageLoad" => "Build",
        "ImageCreate" => "Pull",
        _ => "Admin",
    }
}
