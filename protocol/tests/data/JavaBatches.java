// Writes java_batches.txt: record batches built by Apache Kafka 4.3.1's own classes, one a line, name and hex.
// Run with Kafka's jars on the class path: java -cp 'libs/*' JavaBatches.java > java_batches.txt
import java.nio.ByteBuffer;
import java.util.HexFormat;
import java.util.List;
import java.util.function.Consumer;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.message.*;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.common.utils.ByteBufferOutputStream;

public class JavaBatches {
    static final long T = 1_700_000_000_000L;

    static byte[] bytes(String text) {
        return text == null ? null : text.getBytes(java.nio.charset.StandardCharsets.UTF_8);
    }

    static void print(String name, MemoryRecords records) {
        ByteBuffer buffer = records.buffer().duplicate();
        byte[] out = new byte[buffer.remaining()];
        buffer.get(out);
        System.out.println(name + " " + HexFormat.of().formatHex(out));
    }

    static void small(MemoryRecordsBuilder builder) {
        Header[] headers = {
            new RecordHeader("h", bytes("1")), new RecordHeader("h", (byte[]) null),
            new RecordHeader("", bytes("")), new RecordHeader("schlüssel", new byte[] {0, -1})
        };
        builder.append(T, bytes("key"), bytes("value"), headers);
        builder.append(T - 70_000, null, bytes("no key"));
        builder.append(T + 5_000_000, bytes("tombstone"), null);
        builder.append(T, bytes(""), bytes(""));
        builder.append(T + 1, bytes("x".repeat(300)), bytes("y".repeat(70_000 / 100)));
    }

    static void large(MemoryRecordsBuilder builder) {
        for (int i = 0; i < 3_000; i++)
            builder.append(T + i, bytes("key" + i), bytes(("value " + i + " ").repeat(10)));
    }

    static MemoryRecords build(
            Compression compression, TimestampType type, long pid, short epoch, int sequence,
            boolean transactional, boolean control, int leaderEpoch, long horizon, Consumer<MemoryRecordsBuilder> fill) {
        MemoryRecordsBuilder builder = new MemoryRecordsBuilder(
            new ByteBufferOutputStream(1 << 20), (byte) 2, compression, type, 100L, T + 77, pid, epoch, sequence,
            transactional, control, leaderEpoch, 1 << 20, horizon);
        fill.accept(builder);
        return builder.build();
    }

    static MemoryRecords plain(Compression compression, Consumer<MemoryRecordsBuilder> fill) {
        return build(compression, TimestampType.CREATE_TIME, -1, (short) -1, -1, false, false, -1, -1, fill);
    }

    public static void main(String[] args) {
        List<Compression> codecs = List.of(Compression.NONE, Compression.gzip().build(), Compression.snappy().build(),
            Compression.lz4().build(), Compression.zstd().build());
        for (Compression codec : codecs) {
            print("small-" + codec.type().name, plain(codec, JavaBatches::small));
            if (codec.type() != CompressionType.NONE)
                print("large-" + codec.type().name, plain(codec, JavaBatches::large));
        }
        Compression none = Compression.NONE;
        print("transactional", build(none, TimestampType.CREATE_TIME, 4711, (short) 3, 2147483645, true, false, 9, -1, JavaBatches::small));
        print("log-append-time", build(none, TimestampType.LOG_APPEND_TIME, -1, (short) -1, -1, false, false, 9, -1, JavaBatches::small));
        print("delete-horizon", build(none, TimestampType.CREATE_TIME, -1, (short) -1, -1, false, false, 9, T + 99, JavaBatches::small));
        ByteBuffer empty = ByteBuffer.allocate(61);
        DefaultRecordBatch.writeEmptyHeader(empty, (byte) 2, 4711, (short) 3, 2147483645, 100L, 104L, 9, TimestampType.CREATE_TIME, T + 5_000_000, true, false);
        empty.flip();
        print("empty", MemoryRecords.readableRecords(empty));
        for (ControlRecordType type : List.of(ControlRecordType.ABORT, ControlRecordType.COMMIT))
            print("end-" + type.name().toLowerCase(), MemoryRecords.withEndTransactionMarker(
                0L, T, -1, 4711L, (short) 3, new EndTransactionMarker(type, 12)));
        LeaderChangeMessage change = new LeaderChangeMessage().setLeaderId(3)
            .setVoters(List.of(new LeaderChangeMessage.Voter().setVoterId(1), new LeaderChangeMessage.Voter().setVoterId(3)))
            .setGrantingVoters(List.of(new LeaderChangeMessage.Voter().setVoterId(3)));
        print("leader-change", MemoryRecords.withLeaderChangeMessage(100L, T, 9, ByteBuffer.allocate(500), change));
        print("snapshot-header", MemoryRecords.withSnapshotHeaderRecord(100L, T, 9, ByteBuffer.allocate(500),
            new SnapshotHeaderRecord().setLastContainedLogTimestamp(T - 1)));
        print("snapshot-footer", MemoryRecords.withSnapshotFooterRecord(100L, T, 9, ByteBuffer.allocate(500), new SnapshotFooterRecord()));
        print("kraft-version", MemoryRecords.withKRaftVersionRecord(100L, T, 9, ByteBuffer.allocate(500),
            new KRaftVersionRecord().setKRaftVersion((short) 1)));
        VotersRecord.EndpointCollection endpoints = new VotersRecord.EndpointCollection();
        endpoints.add(new VotersRecord.Endpoint().setName("CONTROLLER").setHost("localhost").setPort(9093));
        print("kraft-voters", MemoryRecords.withVotersRecord(100L, T, 9, ByteBuffer.allocate(500), new VotersRecord().setVoters(List.of(
            new VotersRecord.Voter().setVoterId(1).setVoterDirectoryId(new Uuid(1, 2)).setEndpoints(endpoints)
                .setKRaftVersionFeature(new VotersRecord.KRaftVersionFeature().setMinSupportedVersion((short) 0).setMaxSupportedVersion((short) 1))))));
    }
}
