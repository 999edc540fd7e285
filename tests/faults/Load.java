// A stock producer under a steady load: every partition gets its share of records, and every fate is a line on standard output.
//
// Arguments: bootstrap servers, topic, partitions, records per second and partition, the most unacknowledged records of a
// partition, request.timeout.ms. Lines: "S partition number" before a record is handed over, "A partition number offset" when
// it is acknowledged, "F partition number reason" when it is given up. It ends when its standard input does.

import java.io.PrintStream;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLongArray;

import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

public final class Load {
    private static final long PAUSE_MS = 2;

    public static void main(String[] arguments) throws Exception {
        String topic = arguments[1];
        int partitions = Integer.parseInt(arguments[2]);
        long rate = Long.parseLong(arguments[3]);
        long room = Long.parseLong(arguments[4]);
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("request.timeout.ms", arguments[5]);
        settings.put("acks", "all");
        PrintStream out = new PrintStream(System.out, true);
        Thread input = new Thread(Load::untilInputEnds);
        input.setDaemon(true);
        input.start();

        AtomicLongArray pending = new AtomicLongArray(partitions);
        long[] sent = new long[partitions];
        try (KafkaProducer<String, String> producer =
                new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            long begin = System.nanoTime();
            while (input.isAlive()) {
                long due = (System.nanoTime() - begin) / 1_000_000 * rate / 1_000;
                for (int partition = 0; partition < partitions; partition++) {
                    while (sent[partition] < due && pending.get(partition) < room) {
                        send(producer, topic, partition, sent[partition]++, pending, out);
                    }
                }
                Thread.sleep(PAUSE_MS);
            }
            producer.flush();
        }
    }

    private static void send(KafkaProducer<String, String> producer, String topic, int partition, long number,
            AtomicLongArray pending, PrintStream out) {
        String id = partition + " " + number;
        out.println("S " + id);
        pending.incrementAndGet(partition);
        String value = partition + ":" + number;
        producer.send(new ProducerRecord<>(topic, partition, null, value), (stored, failure) -> {
            pending.decrementAndGet(partition);
            if (failure == null) {
                out.println("A " + id + " " + stored.offset());
            } else {
                out.println("F " + id + " " + String.valueOf(failure).replace('\n', ' '));
            }
        });
    }

    private static void untilInputEnds() {
        try {
            while (System.in.read() >= 0) {
                // Nothing is ever said to it.
            }
        } catch (java.io.IOException closed) {
            // An end as good as any.
        }
    }
}
