package klamm.suites;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Map;
import java.util.OptionalInt;
import java.util.stream.Stream;

import kafka.raft.KafkaRaftManager;

import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.internals.Topic;
import org.apache.kafka.common.message.DescribeQuorumResponseData.PartitionData;
import org.apache.kafka.common.requests.DescribeQuorumRequest;
import org.apache.kafka.common.requests.DescribeQuorumResponse;
import org.apache.kafka.raft.KafkaRaftClient;
import org.apache.kafka.raft.LeaderAndEpoch;
import org.apache.kafka.raft.LogOffsetMetadata;
import org.apache.kafka.raft.RaftLog;
import org.apache.kafka.server.common.ApiMessageAndVersion;

/** What a node says of the quorum of the controllers. */
final class Quorum {
    private static final TopicPartition METADATA_LOG = new TopicPartition(Topic.CLUSTER_METADATA_TOPIC_NAME, 0);

    private Quorum() {
    }

    /** The active controller, where there is one. */
    static LeaderAndEpoch leader(int port) throws IOException {
        return told(port)
            .filter(partition -> partition.leaderId() >= 0)
            .map(partition -> new LeaderAndEpoch(OptionalInt.of(partition.leaderId()), partition.leaderEpoch()))
            .findFirst().orElse(LeaderAndEpoch.UNKNOWN);
    }

    /** The end of what is committed, as the active controller says; 0 from any other node. */
    static long committedEnd(int port) throws IOException {
        return told(port).mapToLong(PartitionData::highWatermark).findFirst().orElse(0);
    }

    private static Stream<PartitionData> told(int port) throws IOException {
        DescribeQuorumRequest question =
            new DescribeQuorumRequest.Builder(DescribeQuorumRequest.singletonRequest(METADATA_LOG)).build();
        DescribeQuorumResponse answer = (DescribeQuorumResponse) Wire.ask(port, question);
        return answer.data().topics().stream()
            .flatMap(topic -> topic.partitions().stream())
            .filter(partition -> partition.errorCode() == 0);
    }

    /**
     * What tests take for a node's part in the quorum. It knows the leader, and the end of an empty log: who waits until the brokers have
     * applied all of it asks the brokers afterwards.
     */
    @SuppressWarnings("unchecked")
    static KafkaRaftManager<ApiMessageAndVersion> manager(int port) {
        RaftLog log = Internals.proxy(RaftLog.class, (method, arguments) -> {
            if (method.equals("endOffset")) {
                return new LogOffsetMetadata(0);
            }
            throw Internals.ask("raftManager.raftLog." + method);
        });
        KafkaRaftClient<?> client = Internals.only(KafkaRaftClient.class, Map.of("leaderAndEpoch", arguments -> {
            try {
                return leader(port);
            } catch (IOException away) {
                throw new UncheckedIOException(away);
            }
        }));
        return Internals.only(KafkaRaftManager.class, Map.of("raftLog", arguments -> log, "client", arguments -> client));
    }
}
