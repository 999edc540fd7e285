package klamm.suites;

import java.io.IOException;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import java.util.Set;

import kafka.log.LogManager;
import kafka.network.SocketServer;
import kafka.raft.KafkaRaftManager;
import kafka.server.BrokerServer;
import kafka.server.ReplicaManager;
import kafka.server.SharedServer;

import org.apache.kafka.common.network.ListenerName;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.requests.ApiVersionsRequest;
import org.apache.kafka.common.requests.ApiVersionsResponse;
import org.apache.kafka.common.utils.Utils;
import org.apache.kafka.coordinator.group.GroupCoordinator;
import org.apache.kafka.coordinator.group.GroupCoordinatorConfig;
import org.apache.kafka.metadata.BrokerState;
import org.apache.kafka.metadata.KRaftMetadataCache;
import org.apache.kafka.server.common.ApiMessageAndVersion;

/**
 * What tests take for a broker of their own JVM, and is a process. What a process can be asked over its listener is answered;
 * everything else is as in a broker that never started, or refuses.
 */
public final class ProcessBroker extends BrokerServer {
    private static final long START_LIMIT_MS = 60_000;

    private final NodeProcess process;
    /** The controller in the same process; null where there is none. */
    private final ProcessController controller;
    private final Map<String, Integer> ports;
    private final int port;
    private final BrokerMetadata metadata;
    private final Replicas replicas;

    /** @param ports the ports of the node's listeners; {@code listener} is that of its clients */
    public ProcessBroker(
        SharedServer shared,
        NodeProcess process,
        ProcessController controller,
        Map<String, Integer> ports,
        ListenerName listener
    ) {
        super(shared);
        this.process = process;
        this.controller = controller;
        this.ports = ports;
        this.port = ports.get(listener.value());
        this.metadata = new BrokerMetadata(config().nodeId(), port, listener);
        this.replicas = new Replicas(config(), metadata);
    }

    public void spawn() {
        process.spawn();
    }

    /** Waits until the broker is unfenced, and knows it. */
    public void awaitStart() {
        try {
            Wait.until("broker " + config().nodeId() + " to be unfenced", START_LIMIT_MS, () -> {
                if (!process.isRunning()) {
                    return true;
                }
                return metadata.hasAliveBroker(config().nodeId());
            });
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
        process.requireRunning();
    }

    @Override
    public void startup() {
        if (process.isRunning() && !process.isBrokerRunning()) {
            stopProcess();
        }
        spawn();
        awaitStart();
    }

    /** Stops the process, and starts it again without the role of a broker where it is a controller as well. */
    @Override
    public void shutdown(Duration limit) {
        if (!process.isBrokerRunning()) {
            return;
        }
        stopProcess();
        if (controller != null) {
            process.spawnWithoutBroker();
            controller.awaitStart();
        }
    }

    private void stopProcess() {
        process.terminate();
        process.awaitEnd();
    }

    @Override
    public void shutdown() {
        shutdown(Duration.ZERO);
    }

    @Override
    public void awaitShutdown() {
        if (process.isBrokerRunning()) {
            process.awaitEnd();
        }
    }

    @Override
    public boolean isShutdown() {
        return !process.isBrokerRunning();
    }

    @Override
    public BrokerState brokerState() {
        if (process.isBrokerRunning()) {
            return BrokerState.RUNNING;
        }
        // A broker in the JVM stays in this state when it has stopped.
        return process.wasStarted() ? BrokerState.SHUTTING_DOWN : BrokerState.NOT_RUNNING;
    }

    @Override
    public int boundPort(ListenerName listener) {
        return ports.get(listener.value());
    }

    @Override
    public SocketServer socketServer() {
        return Internals.only(SocketServer.class,
            Map.of("config", arguments -> config(), "boundPort", arguments -> boundPort((ListenerName) arguments[0])));
    }

    @Override
    public KafkaRaftManager<ApiMessageAndVersion> raftManager() {
        return Quorum.manager(port);
    }

    @Override
    public KRaftMetadataCache metadataCache() {
        return metadata;
    }

    @Override
    public GroupCoordinator groupCoordinator() {
        return Internals.proxy(GroupCoordinator.class, (method, arguments) -> {
            GroupCoordinatorConfig groups = config().groupCoordinatorConfig();
            switch (method) {
                case "partitionFor":
                    return Utils.abs(arguments[0].hashCode()) % groups.offsetsTopicPartitions();
                case "groupMetadataTopicConfigs":
                    Properties configs = new Properties();
                    configs.put("cleanup.policy", "compact");
                    configs.put("compression.type", "producer");
                    configs.put("segment.bytes", Integer.toString(groups.offsetsTopicSegmentBytes()));
                    return configs;
                default:
                    throw Internals.ask("groupCoordinator." + method);
            }
        });
    }

    @Override
    public ReplicaManager replicaManager() {
        return replicas.replicas();
    }

    @Override
    public LogManager logManager() {
        return replicas.logs();
    }

    /** The brokers that this one takes for alive. */
    public Set<Integer> unfenced() {
        return metadata.unfenced();
    }

    /** Whether the broker serves an API. */
    public boolean serves(ApiKeys api) throws IOException {
        return apiVersions().apiVersion(api.id) != null;
    }

    /** The end of what the broker has applied of the metadata log. */
    public long appliedEnd() throws IOException {
        return apiVersions().data().finalizedFeaturesEpoch() + 1;
    }

    private ApiVersionsResponse apiVersions() throws IOException {
        return (ApiVersionsResponse) Wire.ask(port, new ApiVersionsRequest.Builder().build());
    }
}
