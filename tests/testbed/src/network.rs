//! A network of a test's own: a bridge, and a network namespace with an address for each node, between which packets can be
//! dropped in one direction at a time, or by chance.
//!
//! Needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN); a test that cannot have it fails and says so. Everything is removed with the
//! value, and also when the test process dies.

use std::process::Command;

use crate::guard::Guard;
use crate::place::unique;
use crate::program::require;

/// Interface names may have 15 characters.
const MAX_INTERFACE_NAME: usize = 15;

/// Nodes 1, 2, ... on addresses that reach one another and this process.
#[derive(Debug)]
pub struct Network {
    /// Distinguishes the names of all that belongs to this network.
    name: String,
    /// The first three numbers of all its addresses.
    prefix: String,
    nodes: i32,
    /// The shell commands that remove it.
    removal: String,
    #[expect(dead_code, reason = "held for its drop")]
    guard: Guard,
}

impl Network {
    /// Makes a network for nodes `1..=nodes`.
    ///
    /// # Panics
    /// When this process may not make one, saying what it lacks.
    pub fn new(nodes: i32) -> Self {
        require("ip", "iproute2");
        require("iptables", "iptables");
        let pid = std::process::id();
        let name = format!("k{}{}", pid % 10_000, unique("").replace('-', "n"));
        let number = name.bytes().fold(pid, |sum, byte| sum.wrapping_mul(31) + u32::from(byte));
        let prefix = format!("10.{}.{}", 128 + number % 100, number / 100 % 250);
        let removal: String = (1..=nodes)
            .map(|node| {
                // A namespace takes its interfaces along, but only after a while.
                format!("ip link del {name}v{node} 2>/dev/null; ip netns del {name}-{node} 2>/dev/null; ")
            })
            .chain([format!("ip link del {name} 2>/dev/null")])
            .collect();
        let guard = Guard::afterwards(&removal);
        let network = Self { name, prefix, nodes, removal, guard };
        network.make();
        network
    }

    fn make(&self) {
        let Self { name, prefix, nodes, .. } = self;
        assert!(name.len() + 2 <= MAX_INTERFACE_NAME, "{name} is too long for an interface");
        run(&format!("ip link add {name} type bridge"));
        run(&format!("ip addr add {prefix}.254/24 dev {name}"));
        run(&format!("ip link set {name} up"));
        for node in 1..=*nodes {
            let namespace = self.namespace(node);
            run(&format!("ip netns add {namespace}"));
            run(&format!("ip link add {name}v{node} type veth peer name eth0 netns {namespace}"));
            run(&format!("ip link set {name}v{node} master {name} up"));
            run(&format!("ip -n {namespace} addr add {prefix}.{node}/24 dev eth0"));
            run(&format!("ip -n {namespace} link set eth0 up"));
            run(&format!("ip -n {namespace} link set lo up"));
        }
    }

    /// A node's IP address.
    pub fn address(&self, node: i32) -> String {
        format!("{}.{node}", self.prefix)
    }

    /// A node's network namespace.
    pub fn namespace(&self, node: i32) -> String {
        format!("{}-{node}", self.name)
    }

    /// From now on nothing that `from` sends reaches `to`; the other direction stays open.
    ///
    /// # Panics
    /// When the kernel refuses the rule.
    pub fn cut(&self, from: i32, to: i32) {
        let (namespace, source) = (self.namespace(to), self.address(from));
        run(&format!("ip netns exec {namespace} iptables -A INPUT -s {source} -j DROP"));
    }

    /// From now on so many of a hundred packets to each node are lost, by chance, whoever sends them.
    ///
    /// # Panics
    /// When the kernel refuses the rule.
    pub fn lose(&self, percent: u32) {
        let probability = f64::from(percent) / 100.0;
        for node in 1..=self.nodes {
            let namespace = self.namespace(node);
            run(&format!(
                "ip netns exec {namespace} iptables -A INPUT -i eth0 -m statistic --mode random \
                 --probability {probability} -j DROP"
            ));
        }
    }

    /// Ends all cuts and losses.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn heal(&self) {
        for node in 1..=self.nodes {
            run(&format!("ip netns exec {} iptables -F INPUT", self.namespace(node)));
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let removed = Command::new("sh").args(["-c", &self.removal]).status();
        if !removed.is_ok_and(|status| status.success()) {
            eprintln!("parts of the network {} stay behind", self.name);
        }
    }
}

/// Runs a command that only root may run.
///
/// # Panics
/// When it fails, with what it said.
pub(crate) fn run(line: &str) {
    let mut words = line.split(' ');
    let program = words.next().expect("a command has a name");
    let output = Command::new(program).args(words).output();
    let output = output.unwrap_or_else(|error| panic!("cannot start {line}: {error}"));
    assert!(
        output.status.success(),
        "{line} failed: this test needs root with CAP_NET_ADMIN and CAP_SYS_ADMIN\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a ping from one node gets its answer from another.
    fn reaches(network: &Network, from: i32, to: i32) -> bool {
        require("ping", "iputils-ping");
        let mut ping = Command::new("ip");
        ping.args(["netns", "exec", &network.namespace(from), "ping", "-c1", "-W1"]);
        ping.arg(network.address(to)).output().unwrap().status.success()
    }

    #[test]
    fn a_cut_is_in_one_direction_between_two_nodes_until_it_heals() {
        let network = Network::new(3);
        assert!(reaches(&network, 1, 2));
        network.cut(1, 2);
        assert!(!reaches(&network, 1, 2), "the question is dropped");
        assert!(!reaches(&network, 2, 1), "the answer is dropped");
        assert!(reaches(&network, 1, 3) && reaches(&network, 3, 2));
        network.heal();
        assert!(reaches(&network, 1, 2));
    }

    #[test]
    fn a_loss_of_every_packet_lasts_until_it_heals() {
        let network = Network::new(2);
        network.lose(100);
        assert!(!reaches(&network, 1, 2));
        network.heal();
        assert!(reaches(&network, 1, 2));
    }
}
