package klamm.suites;

import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;

import kafka.server.KafkaConfig;
import kafka.server.SharedServer;

import org.apache.kafka.common.metrics.Metrics;
import org.apache.kafka.common.test.MockFaultHandler;
import org.apache.kafka.common.test.TestKitNode;
import org.apache.kafka.common.test.TestKitNodes;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.metadata.properties.MetaPropertiesEnsemble;
import org.apache.kafka.server.ServerSocketFactory;

/** One node of a kit's cluster: its process, and what tests take for its broker and its controller. */
public final class KitNode {
    private final int id;
    private final NodeProcess process;
    private final MetaPropertiesEnsemble directories;
    private final ProcessBroker broker;
    private final ProcessController controller;

    public KitNode(TestKitNodes nodes, int id, NodeConfiguration configuration) throws Exception {
        this.id = id;
        TestKitNode asController = nodes.controllerNodes().get(id);
        TestKitNode asBroker = nodes.brokerNodes().get(id);
        directories = (asController != null ? asController : asBroker).initialMetaPropertiesEnsemble();
        // Kafka's own reading of the configuration: what it refuses is refused here, too.
        KafkaConfig config = new KafkaConfig(configuration.properties(), false);
        MockFaultHandler noFaults = new MockFaultHandler("JVM");
        SharedServer shared = new SharedServer(config, directories, Time.SYSTEM, new Metrics(),
            CompletableFuture.completedFuture(Map.of()), List.of(), (name, fatal, action) -> noFaults, ServerSocketFactory.INSTANCE);
        process = new NodeProcess(id, Path.of(nodes.baseDirectory(), "node-" + id), configuration);
        controller = asController == null ? null : new ProcessController(
            shared, nodes.bootstrapMetadata(), process, configuration.ports(), nodes.controllerListenerName());
        broker = asBroker == null ? null
            : new ProcessBroker(shared, process, controller, configuration.ports(), nodes.brokerListenerName());
    }

    public int id() {
        return id;
    }

    public MetaPropertiesEnsemble directories() {
        return directories;
    }

    public Optional<ProcessBroker> broker() {
        return Optional.ofNullable(broker);
    }

    public Optional<ProcessController> controller() {
        return Optional.ofNullable(controller);
    }

    public void spawn() {
        process.spawn();
    }

    public void awaitStart() {
        controller().ifPresent(ProcessController::awaitStart);
        broker().ifPresent(ProcessBroker::awaitStart);
    }

    public void terminate() {
        process.terminate();
    }

    public void awaitEnd() {
        process.awaitEnd();
    }

    public Optional<String> fault() {
        return Optional.ofNullable(process.fault());
    }
}
