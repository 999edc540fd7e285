package klamm.suites;

import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;

import kafka.server.ControllerServer;
import kafka.server.KafkaBroker;

import org.apache.kafka.clients.consumer.GroupProtocol;
import org.apache.kafka.common.network.ListenerName;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.test.ClusterInstance;
import org.apache.kafka.common.test.KafkaClusterTestKit;
import org.apache.kafka.common.test.TestKitNodes;
import org.apache.kafka.common.test.api.ClusterConfig;
import org.apache.kafka.common.test.api.Type;
import org.apache.kafka.metadata.bootstrap.BootstrapMetadata;
import org.apache.kafka.server.common.Feature;
import org.apache.kafka.server.common.MetadataVersion;
import org.apache.kafka.server.fault.FaultHandlerException;

/** The cluster that a cluster test is given. What Kafka's own kit reads out of its brokers is asked over the network or seen on disk. */
public final class ProcessCluster implements ClusterInstance {
    private static final long LIMIT_MS = 60_000;

    private final ClusterConfig config;
    private final boolean isCombined;
    private KafkaClusterTestKit kit;
    private boolean isStarted;
    private boolean isStopped;

    public ProcessCluster(ClusterConfig config, boolean isCombined) {
        this.config = config;
        this.isCombined = isCombined;
    }

    /** Prepares the nodes' directories, once. */
    public void format() throws Exception {
        if (kit != null) {
            return;
        }
        TestKitNodes nodes = new TestKitNodes.Builder()
            .setBootstrapMetadata(BootstrapMetadata.fromVersions(config.metadataVersion(), featureLevels(), "kafka-suites"))
            .setCombined(isCombined)
            .setNumBrokerNodes(config.numBrokers())
            .setNumControllerNodes(config.numControllers())
            .setNumDisksPerBroker(config.numDisksPerBroker())
            .setPerServerProperties(config.perServerOverrideProperties())
            .setBrokerListenerName(config.brokerListenerName())
            .setBrokerSecurityProtocol(config.brokerSecurityProtocol())
            .setControllerListenerName(config.controllerListenerName())
            .setControllerSecurityProtocol(config.controllerSecurityProtocol())
            .build();
        KafkaClusterTestKit.Builder builder = new KafkaClusterTestKit.Builder(nodes).setStandalone(config.standalone());
        config.serverProperties().forEach(builder::setConfigProp);
        kit = builder.build();
        kit.format();
    }

    /** What the test asks for; for all other features the default of its metadata version. */
    private Map<String, Short> featureLevels() {
        Map<String, Short> levels = new TreeMap<>();
        for (Feature feature : Feature.PRODUCTION_FEATURES) {
            levels.put(feature.featureName(), feature.defaultLevel(config.metadataVersion()));
        }
        config.features().forEach((feature, level) -> levels.put(feature.featureName(), level));
        levels.put(MetadataVersion.FEATURE_NAME, config.metadataVersion().featureLevel());
        return levels;
    }

    @Override
    public void start() {
        try {
            format();
        } catch (Exception error) {
            throw new IllegalStateException("the cluster cannot be formatted", error);
        }
        if (!isStarted) {
            isStarted = true;
            kit.startup();
        }
    }

    @Override
    public boolean started() {
        return isStarted;
    }

    @Override
    public void stop() {
        if (isStopped) {
            return;
        }
        isStopped = true;
        try {
            kit.close();
        } catch (RuntimeException error) {
            throw error;
        } catch (Exception error) {
            throw new IllegalStateException("the cluster cannot be stopped", error);
        }
    }

    @Override
    public boolean stopped() {
        return isStopped;
    }

    @Override
    public Type type() {
        return isCombined ? Type.CO_KRAFT : Type.KRAFT;
    }

    @Override
    public ClusterConfig config() {
        return config;
    }

    @Override
    public Map<Integer, KafkaBroker> brokers() {
        return new TreeMap<>(kit.brokers());
    }

    @Override
    public Map<Integer, ControllerServer> controllers() {
        return kit.controllers();
    }

    @Override
    public Set<Integer> controllerIds() {
        return kit.nodes().controllerNodes().keySet();
    }

    @Override
    public ListenerName clientListener() {
        return config.brokerListenerName();
    }

    @Override
    public ListenerName controllerListenerName() {
        return config.controllerListenerName();
    }

    @Override
    public String bootstrapServers() {
        return kit.bootstrapServers();
    }

    @Override
    public String bootstrapControllers() {
        return kit.bootstrapControllers();
    }

    @Override
    public List<Integer> brokerBoundPorts() {
        return processes().map(broker -> broker.boundPort(clientListener())).toList();
    }

    @Override
    public List<Integer> controllerBoundPorts() {
        return kit.controllers().values().stream().map(server -> ((ProcessController) server).boundPort()).toList();
    }

    @Override
    public String clusterId() {
        return kit.nodes().clusterId();
    }

    /** By the APIs that the brokers serve. */
    @Override
    public Set<GroupProtocol> supportedGroupProtocols() {
        boolean hasConsumerProtocol = processes().allMatch(broker -> {
            try {
                return broker.serves(ApiKeys.CONSUMER_GROUP_HEARTBEAT);
            } catch (IOException away) {
                throw new UncheckedIOException(away);
            }
        });
        return hasConsumerProtocol ? Set.of(GroupProtocol.CLASSIC, GroupProtocol.CONSUMER) : Set.of(GroupProtocol.CLASSIC);
    }

    private java.util.stream.Stream<ProcessBroker> processes() {
        return kit.brokers().values().stream().map(broker -> (ProcessBroker) broker);
    }

    @Override
    public Optional<FaultHandlerException> firstFatalException() {
        return Optional.ofNullable(kit.fatalFaultHandler().firstException());
    }

    @Override
    public Optional<FaultHandlerException> firstNonFatalException() {
        return Optional.ofNullable(kit.nonFatalFaultHandler().firstException());
    }

    /** A broker in the JVM takes a second to stop, and the others know of it by then. */
    @Override
    public void shutdownBroker(int id) {
        brokers().get(id).shutdown();
        try {
            Wait.until("broker " + id + " to be fenced", LIMIT_MS, () ->
                aliveBrokers().values().stream().noneMatch(broker -> broker.metadataCache().hasAliveBroker(id)));
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
    }

    @Override
    public void startBroker(int id) {
        brokers().get(id).startup();
    }

    @Override
    public void waitForReadyBrokers() throws InterruptedException {
        kit.waitForReadyBrokers();
    }

    @Override
    public void waitTopicCreation(String topic, int partitions) throws InterruptedException {
        Collection<KafkaBroker> brokers = aliveBrokers().values();
        Wait.until(topic + " with " + partitions + " partitions at every broker", LIMIT_MS, () -> brokers.stream()
            .allMatch(broker -> broker.metadataCache().numPartitions(topic).equals(Optional.of(partitions))));
        ensureConsistentMetadata(brokers, controllers().values());
    }

    /** Waits until no broker knows the topic, and none has a directory of it, under its name or as one that awaits its deletion. */
    @Override
    public void waitTopicDeletion(String topic) throws InterruptedException {
        Collection<KafkaBroker> brokers = aliveBrokers().values();
        Wait.until(topic + " to be unknown to every broker", LIMIT_MS,
            () -> brokers.stream().noneMatch(broker -> broker.metadataCache().contains(topic)));
        Wait.until("the directories of " + topic + " to be gone", LIMIT_MS, () -> brokers.stream()
            .flatMap(broker -> broker.config().logDirs().stream())
            .flatMap(directory -> Arrays.stream(new File(directory).list()))
            .noneMatch(name -> name.equals(topic + "-0") || name.startsWith(topic + "-0.") && name.endsWith("-delete")));
    }

    /** Waits until all brokers have applied what is committed by now, and name the same topics. */
    @Override
    public void ensureConsistentMetadata(Collection<KafkaBroker> brokers, Collection<ControllerServer> controllers)
        throws InterruptedException {
        long[] committed = {0};
        Wait.until("an active controller", LIMIT_MS, () -> {
            for (ControllerServer controller : controllers) {
                committed[0] = Math.max(committed[0], ((ProcessController) controller).committedEnd());
            }
            return committed[0] > 0;
        });
        Wait.until("what is committed at every broker", LIMIT_MS, () -> {
            for (KafkaBroker broker : brokers) {
                if (((ProcessBroker) broker).appliedEnd() < committed[0]) {
                    return false;
                }
            }
            return true;
        });
        Wait.until("the same metadata at every broker", LIMIT_MS, () -> brokers.stream()
            .map(broker -> broker.metadataCache().topicNamesToIds()).distinct().count() <= 1);
    }
}
