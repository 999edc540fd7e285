//! What can be seen of a broker's process from outside: memory, descriptors, log lines.

use klamm_testbed::Broker;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::client::Client;

pub(crate) fn client(broker: &Broker) -> Client {
    Client::connect(broker.bootstrap().parse().unwrap())
}

/// Memory that the process has in use, in bytes.
pub(crate) fn resident_bytes(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// What the broker has logged so far.
pub(crate) fn log(broker: &Broker) -> String {
    std::fs::read_to_string(broker.properties().with_file_name("log")).unwrap()
}

/// Changes how many descriptors the process may have open; returns the limits that held.
pub(crate) fn limit_descriptors(broker: &Broker, limits: Rlimit) -> Rlimit {
    let pid = Pid::from_raw(i32::try_from(broker.pid()).unwrap());
    prlimit(pid, Resource::Nofile, limits).unwrap()
}
