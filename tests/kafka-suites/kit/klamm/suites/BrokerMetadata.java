package klamm.suites;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Collectors;

import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.network.ListenerName;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.requests.MetadataRequest;
import org.apache.kafka.common.requests.MetadataResponse;
import org.apache.kafka.common.requests.MetadataResponse.PartitionMetadata;
import org.apache.kafka.common.requests.MetadataResponse.TopicMetadata;
import org.apache.kafka.image.MetadataImage;
import org.apache.kafka.metadata.KRaftMetadataCache;
import org.apache.kafka.metadata.LeaderAndIsr;
import org.apache.kafka.metadata.LeaderRecoveryState;
import org.apache.kafka.server.common.KRaftVersion;

/** What one broker knows of its cluster, by its answers to Metadata requests. */
final class BrokerMetadata extends KRaftMetadataCache {
    private final int port;
    private final ListenerName listener;

    /** @param port the port of {@code listener}, which is that of the clients */
    BrokerMetadata(int id, int port, ListenerName listener) {
        super(id, () -> KRaftVersion.KRAFT_VERSION_0);
        this.port = port;
        this.listener = listener;
    }

    private MetadataResponse ask(MetadataRequest.Builder question) {
        try {
            return (MetadataResponse) Wire.ask(port, question.build());
        } catch (IOException away) {
            throw new UncheckedIOException(away);
        }
    }

    private Map<String, TopicMetadata> topics() {
        Map<String, TopicMetadata> topics = new HashMap<>();
        ask(MetadataRequest.Builder.allTopics()).topicMetadata().forEach(topic -> topics.put(topic.topic(), topic));
        return topics;
    }

    private Optional<TopicMetadata> topic(String name) {
        return ask(new MetadataRequest.Builder(List.of(name), false)).topicMetadata().stream()
            .filter(topic -> topic.error() != Errors.UNKNOWN_TOPIC_OR_PARTITION)
            .findFirst();
    }

    private MetadataResponse brokersOnly() {
        return ask(new MetadataRequest.Builder(List.of(), false));
    }

    Set<Integer> unfenced() {
        return brokersOnly().brokersById().keySet();
    }

    /** As the clients' listener names them: none other is asked. */
    @Override
    public List<Node> getAliveBrokerNodes(ListenerName name) {
        if (!name.equals(listener)) {
            throw Internals.ask("metadataCache.getAliveBrokerNodes of " + name.value());
        }
        return List.copyOf(brokersOnly().brokers());
    }

    @Override
    public Set<String> getAllTopics() {
        return topics().keySet();
    }

    @Override
    public Uuid getTopicId(String name) {
        return topic(name).map(TopicMetadata::topicId).orElse(Uuid.ZERO_UUID);
    }

    @Override
    public Map<String, Uuid> topicNamesToIds() {
        return topics().values().stream().collect(Collectors.toMap(TopicMetadata::topic, TopicMetadata::topicId));
    }

    @Override
    public boolean hasAliveBroker(int id) {
        return unfenced().contains(id);
    }

    @Override
    public boolean contains(String name) {
        return topic(name).isPresent();
    }

    @Override
    public boolean contains(TopicPartition partition) {
        return partition(partition.topic(), partition.partition()).isPresent();
    }

    @Override
    public Optional<Integer> numPartitions(String name) {
        return topic(name).map(topic -> topic.partitionMetadata().size());
    }

    @Override
    public Optional<LeaderAndIsr> getLeaderAndIsr(String name, int number) {
        return partition(name, number).map(partition -> new LeaderAndIsr(
            partition.leaderId.orElse(-1),
            partition.leaderEpoch.orElse(0),
            partition.inSyncReplicaIds,
            LeaderRecoveryState.RECOVERED,
            0));
    }

    private Optional<PartitionMetadata> partition(String name, int number) {
        return topic(name).flatMap(topic -> topic.partitionMetadata().stream()
            .filter(partition -> partition.partition() == number)
            .findFirst());
    }

    @Override
    public MetadataImage currentImage() {
        throw Internals.ask("metadataCache.currentImage");
    }

    @Override
    public MetadataImage getImage() {
        throw Internals.ask("metadataCache.getImage");
    }
}
