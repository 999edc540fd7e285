package klamm.suites;

import java.io.File;
import java.util.Map;

import kafka.cluster.Partition;
import kafka.log.LogManager;
import kafka.server.KafkaConfig;
import kafka.server.ReplicaManager;

import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.metadata.KRaftMetadataCache;
import org.apache.kafka.storage.internals.log.UnifiedLog;

import scala.Option;

/**
 * What tests ask of a broker's replicas that can be seen from outside: whether there is one, by its directory, and whether it leads, by the
 * broker's metadata. Their contents are nobody's business but the broker's.
 */
final class Replicas {
    private final KafkaConfig config;
    private final KRaftMetadataCache metadata;

    Replicas(KafkaConfig config, KRaftMetadataCache metadata) {
        this.config = config;
        this.metadata = metadata;
    }

    LogManager logs() {
        return Internals.only(LogManager.class, Map.of("getLog", arguments -> {
            boolean exists = exists((TopicPartition) arguments[0], (boolean) arguments[1]);
            return exists ? Option.apply(log()) : Option.empty();
        }));
    }

    ReplicaManager replicas() {
        return Internals.only(ReplicaManager.class, Map.of("onlinePartition", arguments -> {
            TopicPartition partition = (TopicPartition) arguments[0];
            return exists(partition, false) ? Option.apply(partition(partition)) : Option.empty();
        }));
    }

    private Partition partition(TopicPartition partition) {
        return Internals.only(Partition.class, Map.of(
            "leaderIdIfLocal", arguments -> leads(partition) ? Option.apply(config.nodeId()) : Option.empty(),
            "leaderLogIfLocal", arguments -> leads(partition) ? Option.apply(log()) : Option.empty()));
    }

    private static UnifiedLog log() {
        return Internals.only(UnifiedLog.class, Map.of());
    }

    private boolean leads(TopicPartition partition) {
        return metadata.getLeaderAndIsr(partition.topic(), partition.partition())
            .filter(state -> state.leader() == config.nodeId())
            .isPresent();
    }

    private boolean exists(TopicPartition partition, boolean isFuture) {
        return config.logDirs().stream().anyMatch(directory -> isFuture
            ? new File(directory).list((parent, name) -> name.startsWith(partition + ".") && name.endsWith("-future")).length > 0
            : new File(directory, partition.toString()).isDirectory());
    }
}
