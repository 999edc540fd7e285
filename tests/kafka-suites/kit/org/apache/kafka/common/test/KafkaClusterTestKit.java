package org.apache.kafka.common.test;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Collectors;
import java.util.stream.Stream;

import kafka.raft.KafkaRaftManager;
import kafka.server.BrokerServer;
import kafka.server.ControllerServer;

import klamm.suites.Format;
import klamm.suites.KitClients;
import klamm.suites.KitNode;
import klamm.suites.NodeConfiguration;
import klamm.suites.ProcessBroker;
import klamm.suites.ProcessController;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.utils.Utils;
import org.apache.kafka.controller.Controller;
import org.apache.kafka.server.common.ApiMessageAndVersion;

/**
 * The cluster of Kafka's integration tests, with a process of the broker under test for each node. It has the name and the methods of
 * Kafka's own class and comes before it on the class path.
 */
public class KafkaClusterTestKit implements AutoCloseable {
    private final TestKitNodes nodes;
    private final Map<Integer, KitNode> kitNodes;
    private final Map<Integer, Integer> controllerPorts;
    private final Map<Integer, Uuid> initialVoters;
    private final boolean hasStaticVoters;
    private final boolean deleteOnClose;
    private final MockFaultHandler fatalFaults = new MockFaultHandler("fatalFaultHandler");
    private final MockFaultHandler nonFatalFaults = new MockFaultHandler("nonFatalFaultHandler");

    private KafkaClusterTestKit(Builder builder) throws Exception {
        nodes = builder.nodes;
        deleteOnClose = builder.deleteOnClose;
        hasStaticVoters = !builder.standalone && builder.initialVoters == null;
        initialVoters = builder.initialVoters != null ? builder.initialVoters : firstController();
        controllerPorts = NodeConfiguration.controllerPorts(nodes);
        kitNodes = new TreeMap<>();
        List<Integer> ids = Stream.concat(nodes.controllerNodes().keySet().stream(), nodes.brokerNodes().keySet().stream())
            .distinct().collect(Collectors.toList());
        for (int id : ids) {
            NodeConfiguration configuration =
                new NodeConfiguration(nodes, id, builder.configuration, controllerPorts, hasStaticVoters);
            kitNodes.put(id, new KitNode(nodes, id, configuration));
        }
    }

    /** The voter of a quorum that begins with one. */
    private Map<Integer, Uuid> firstController() {
        return nodes.controllerNodes().values().stream().limit(1)
            .collect(Collectors.toMap(TestKitNode::id, TestKitNode::metadataDirectoryId));
    }

    public void format() throws Exception {
        String voters = initialVoters.entrySet().stream()
            .map(voter -> voter.getKey() + "@localhost:" + controllerPorts.get(voter.getKey()) + ":" + voter.getValue())
            .collect(Collectors.joining(","));
        for (KitNode node : kitNodes.values()) {
            boolean isInitialVoter = initialVoters.containsKey(node.id());
            String initial = hasStaticVoters ? null : isInitialVoter ? voters : "";
            Format.node(node.directories(), nodes.bootstrapMetadata(), nodes.controllerListenerName().value(), initial);
        }
    }

    public void startup() {
        kitNodes.values().forEach(KitNode::spawn);
        kitNodes.values().forEach(KitNode::awaitStart);
    }

    public void waitForReadyBrokers() throws InterruptedException {
        TestUtils.waitForCondition(
            () -> brokerProcesses().allMatch(broker -> broker.unfenced().containsAll(nodes.brokerNodes().keySet())),
            60_000, () -> "every broker knows every broker");
    }

    private Stream<ProcessBroker> brokerProcesses() {
        return kitNodes.values().stream().flatMap(node -> node.broker().stream());
    }

    private Stream<ProcessController> controllerProcesses() {
        return kitNodes.values().stream().flatMap(node -> node.controller().stream());
    }

    public Map<Integer, BrokerServer> brokers() {
        return brokerProcesses().collect(Collectors.toMap(broker -> broker.config().nodeId(), broker -> broker,
            (one, other) -> one, TreeMap::new));
    }

    public Map<Integer, ControllerServer> controllers() {
        return controllerProcesses().collect(Collectors.toMap(controller -> controller.config().nodeId(),
            controller -> controller, (one, other) -> one, TreeMap::new));
    }

    public Controller waitForActiveController() throws InterruptedException {
        List<Controller> active = new ArrayList<>();
        TestUtils.waitForCondition(() -> {
            controllerProcesses().map(ControllerServer::controller).filter(Controller::isActive).forEach(active::add);
            return !active.isEmpty();
        }, 60_000, () -> "an active controller");
        return active.get(0);
    }

    public Map<Integer, KafkaRaftManager<ApiMessageAndVersion>> raftManagers() {
        Map<Integer, KafkaRaftManager<ApiMessageAndVersion>> managers = new TreeMap<>();
        controllers().forEach((id, controller) -> managers.put(id, controller.raftManager()));
        brokers().forEach((id, broker) -> managers.putIfAbsent(id, broker.raftManager()));
        return managers;
    }

    public String bootstrapServers() {
        return addresses(brokerProcesses().map(broker -> broker.boundPort(nodes.brokerListenerName())));
    }

    public String bootstrapControllers() {
        return addresses(controllerPorts.values().stream());
    }

    private static String addresses(Stream<Integer> ports) {
        return ports.map(port -> "localhost:" + port).collect(Collectors.joining(","));
    }

    public Admin admin() {
        return admin(Map.of(), false);
    }

    public Admin admin(Map<String, Object> configs) {
        return admin(configs, false);
    }

    public Admin admin(Map<String, Object> configs, boolean usingBootstrapControllers) {
        return KitClients.admin(configs, usingBootstrapControllers ? null : bootstrapServers(),
            usingBootstrapControllers ? bootstrapControllers() : null);
    }

    public TestKitNodes nodes() {
        return nodes;
    }

    public MockFaultHandler fatalFaultHandler() {
        return fatalFaults;
    }

    public MockFaultHandler nonFatalFaultHandler() {
        return nonFatalFaults;
    }

    /** Stops the brokers, then the controllers. A node that had ended by itself, or does not stop, fails the test. */
    @Override
    public void close() throws Exception {
        stop(kitNodes.values().stream().filter(node -> node.controller().isEmpty()).collect(Collectors.toList()));
        stop(kitNodes.values());
        if (deleteOnClose) {
            Utils.delete(Path.of(nodes.baseDirectory()).toFile());
        }
        kitNodes.values().stream().flatMap(node -> node.fault().stream())
            .forEach(fault -> fatalFaults.handleFault(fault, null));
        fatalFaults.maybeRethrowFirstException();
        nonFatalFaults.maybeRethrowFirstException();
    }

    private static void stop(Collection<KitNode> stopping) {
        stopping.forEach(KitNode::terminate);
        stopping.forEach(KitNode::awaitEnd);
    }

    public static class Builder {
        private final TestKitNodes nodes;
        private final Map<String, Object> configuration = new HashMap<>();
        private Map<Integer, Uuid> initialVoters;
        private boolean standalone;
        private boolean deleteOnClose = true;

        public Builder(TestKitNodes nodes) {
            this.nodes = nodes;
        }

        public Builder setConfigProp(String key, Object value) {
            configuration.put(key, value);
            return this;
        }

        public Builder setStandalone(boolean value) {
            standalone = value;
            return this;
        }

        public Builder setInitialVoterSet(Map<Integer, Uuid> voters) {
            initialVoters = voters;
            return this;
        }

        public Builder setDeleteOnClose(boolean value) {
            deleteOnClose = value;
            return this;
        }

        public KafkaClusterTestKit build() throws Exception {
            return new KafkaClusterTestKit(this);
        }
    }
}
