package klamm.suites;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.stream.Collectors;

import org.apache.kafka.common.network.ListenerName;
import org.apache.kafka.common.test.TestKitNode;
import org.apache.kafka.common.test.TestKitNodes;

/** The {@code server.properties} of one node: what the test sets, and what the kit must say of roles, quorum, ports and directories. */
public final class NodeConfiguration {
    private final TestKitNodes nodes;
    private final int id;
    private final Map<String, String> properties = new TreeMap<>();
    /** By listener names, as they are written or in capitals: Kafka takes either. */
    private final Map<String, Integer> ports = new TreeMap<>(String.CASE_INSENSITIVE_ORDER);

    /**
     * @param common what the test sets for every node
     * @param controllerPorts the controllers' ports, by node id
     * @param hasStaticVoters whether the voters are in the configuration and not in the metadata log
     */
    public NodeConfiguration(
        TestKitNodes nodes,
        int id,
        Map<String, Object> common,
        Map<Integer, Integer> controllerPorts,
        boolean hasStaticVoters
    ) {
        this.nodes = nodes;
        this.id = id;
        common.forEach((key, value) -> properties.put(key, text(value)));
        roles();
        quorum(controllerPorts, hasStaticVoters);
        broker().ifPresent(node -> properties.putAll(node.propertyOverrides()));
        controller().ifPresent(node -> properties.putAll(node.propertyOverrides()));
        listeners(controllerPorts);
        // As Kafka's kit: tests know these values.
        properties.putIfAbsent("log.cleaner.dedupe.buffer.size", "2097152");
        properties.putIfAbsent("unstable.feature.versions.enable", "true");
        properties.putIfAbsent("unstable.api.versions.enable", "true");
    }

    public Map<String, String> properties() {
        return properties;
    }

    /** The same as long as the node's broker is stopped and its controller is not. */
    Map<String, String> propertiesWithoutBroker() {
        Map<String, String> without = new TreeMap<>(properties);
        without.put("process.roles", "controller");
        String controllers = nodes.controllerListenerName().value() + "://";
        without.put("listeners", Arrays.stream(properties.get("listeners").split(","))
            .filter(listener -> listener.regionMatches(true, 0, controllers, 0, controllers.length()))
            .collect(Collectors.joining(",")));
        without.remove("advertised.listeners");
        without.remove("inter.broker.listener.name");
        return without;
    }

    /** The ports of its listeners, by their names. */
    public Map<String, Integer> ports() {
        return ports;
    }

    private Optional<TestKitNode> broker() {
        return Optional.ofNullable(nodes.brokerNodes().get(id));
    }

    private Optional<TestKitNode> controller() {
        return Optional.ofNullable(nodes.controllerNodes().get(id));
    }

    private void roles() {
        List<String> roles = new ArrayList<>();
        broker().ifPresent(node -> roles.add("broker"));
        controller().ifPresent(node -> roles.add("controller"));
        String metadata = controller().or(this::broker).orElseThrow().metadataDirectory();
        properties.put("node.id", Integer.toString(id));
        properties.put("process.roles", String.join(",", roles));
        properties.put("metadata.log.dir", metadata);
        properties.put("log.dirs", broker().map(node -> String.join(",", node.logDataDirectories())).orElse(metadata));
        if (broker().isPresent()) {
            properties.remove("controller.quorum.auto.join.enable");
        }
    }

    private void quorum(Map<Integer, Integer> controllerPorts, boolean hasStaticVoters) {
        String key = hasStaticVoters ? "controller.quorum.voters" : "controller.quorum.bootstrap.servers";
        properties.put(key, controllerPorts.entrySet().stream()
            .map(entry -> (hasStaticVoters ? entry.getKey() + "@" : "") + "localhost:" + entry.getValue())
            .collect(Collectors.joining(",")));
    }

    /** Every listener gets its port here: the others must know it before the node runs, and it keeps it over restarts. */
    private void listeners(Map<Integer, Integer> controllerPorts) {
        ListenerName forClients = nodes.brokerListenerName();
        ListenerName forControllers = nodes.controllerListenerName();
        properties.putIfAbsent("listener.security.protocol.map",
            forClients.value() + ":" + nodes.brokerListenerProtocol() + ","
                + forControllers.value() + ":" + nodes.controllerListenerProtocol());
        properties.putIfAbsent("inter.broker.listener.name", forClients.value());
        properties.putIfAbsent("controller.listener.names", forControllers.value());
        List<String> wanted = new ArrayList<>();
        broker().ifPresent(node -> wanted.add(forClients.value() + "://localhost:0"));
        controller().ifPresent(node -> wanted.add(forControllers.value() + "://localhost:0"));
        List<String> listeners = new ArrayList<>();
        for (String listener : properties.getOrDefault("listeners", String.join(",", wanted)).split(",")) {
            int scheme = listener.indexOf("://");
            int colon = listener.lastIndexOf(':');
            String name = listener.substring(0, scheme).trim();
            int port = Integer.parseInt(listener.substring(colon + 1).trim());
            if (port == 0) {
                boolean isController = name.equalsIgnoreCase(forControllers.value()) && controllerPorts.containsKey(id);
                port = isController ? controllerPorts.get(id) : Ports.free();
            }
            ports.put(name, port);
            listeners.add(listener.substring(0, colon + 1) + port);
        }
        properties.put("listeners", String.join(",", listeners));
    }

    private static String text(Object value) {
        if (value instanceof List) {
            return ((List<?>) value).stream().map(NodeConfiguration::text).collect(Collectors.joining(","));
        }
        return value instanceof Class ? ((Class<?>) value).getName() : String.valueOf(value);
    }

    /** Ports for the controllers, by node id. */
    public static Map<Integer, Integer> controllerPorts(TestKitNodes nodes) {
        Map<Integer, Integer> ports = new TreeMap<>();
        nodes.controllerNodes().keySet().forEach(id -> ports.put(id, Ports.free()));
        return ports;
    }
}
