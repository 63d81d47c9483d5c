//! Throughput and round trips between two hosts: on Drover (direct, VXLAN), on a Swarm overlay between the same
//! engines, and on the bare underlay.

fn main() {}
