#!/usr/bin/env bash
# Apache Kafka brings partitions whose log directory was replaced by an empty one back online by itself, empty, without
# an error.
#
# Seen with org.apache.kafka:kafka_2.13 4.3.1 and 4.4.0: one combined node with two log.dirs, a topic with replication
# factor 1, 10 records in each partition. It is stopped cleanly, its second directory (without the metadata log) is
# deleted and formatted anew (kafka-storage.sh format --ignore-formatted, same cluster and node id), and it is started.
#   - At first the partitions of that directory have no leader, as they should: their directory id is gone.
#   - But the broker has made empty logs for them, and reports to the controller where they are, as if they were moved.
#     The controller then takes the sole replica to be whole: the next periodic leader balance
#     (leader.imbalance.check.interval.seconds, 300 by default and 5 here), or instead the next restart, makes it the
#     leader, though unclean.leader.election.enable is false.
#   - Then the end offsets are 0, a consumer reads nothing and sees no error (even with auto.offset.reset=none, from the
#     beginning), new records start at offset 0, and the node's log has no line at ERROR or above.
# A good guess was that the partitions stay offline until someone asks for an unclean election.
# Needs: bash, Maven, a JDK of 17 or later. Takes its jars from Maven Central into a temporary folder.
set -euo pipefail

work=$(mktemp -d)
node=
end() {
  if [ -n "$node" ]; then { kill -9 "$node" || true; wait "$node" || true; } 2>> "$work/end.log"; fi
  rm -rf "$work"
}
trap end EXIT
cat > "$work/Ask.java" <<'JAVA'
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

class Ask {
    static final int PARTITIONS = 4;
    static final int RECORDS = 10;

    static void expect(boolean seen, String what) {
        if (!seen) {
            throw new AssertionError("no longer so: " + what);
        }
    }

    /** Waits until each partition has a leader, which is where offline partitions would end. */
    static void awaitLeaders(Admin admin) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
        while (true) {
            var partitions = admin.describeTopics(List.of("t")).allTopicNames().get().get("t").partitions();
            if (partitions.stream().allMatch(p -> p.leader() != null && p.leader().id() == 1)) {
                return;
            }
            expect(System.nanoTime() < deadline, "each partition has a leader: " + partitions);
            Thread.sleep(200);
        }
    }

    /** The folder of each partition, by the last part of its path. */
    static Map<Integer, String> folders(Admin admin) throws Exception {
        var folders = new TreeMap<Integer, String>();
        admin.describeLogDirs(List.of(1)).allDescriptions().get().get(1).forEach((path, folder) ->
            folder.replicaInfos().keySet().stream().filter(p -> p.topic().equals("t"))
                .forEach(p -> folders.put(p.partition(), path.replaceAll(".*/", ""))));
        return folders;
    }

    static Map<Integer, Long> read(Map<String, Object> at, List<TopicPartition> all, Map<TopicPartition, Long> ends) {
        var read = new TreeMap<Integer, Long>();
        all.forEach(p -> read.put(p.partition(), 0L));
        var config = new HashMap<>(at);
        config.put("auto.offset.reset", "none");
        try (var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            consumer.assign(all);
            consumer.seekToBeginning(all);
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
            while (all.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
                expect(System.nanoTime() < deadline, "a consumer reads up to the end");
                consumer.poll(Duration.ofMillis(200)).forEach(r -> read.merge(r.partition(), 1L, Long::sum));
            }
        }
        return read;
    }

    public static void main(String[] args) throws Exception {
        Map<String, Object> at = Map.of("bootstrap.servers", args[1]);
        var all = new ArrayList<TopicPartition>();
        for (int p = 0; p < PARTITIONS; p++) {
            all.add(new TopicPartition("t", p));
        }
        try (var admin = Admin.create(at)) {
            boolean before = args[0].equals("before");
            if (args[0].equals("soon")) {
                var partitions = admin.describeTopics(List.of("t")).allTopicNames().get().get("t").partitions();
                partitions.stream().filter(p -> p.leader() == null)
                    .forEach(p -> System.out.println("  soon: t-" + p.partition() + " has no leader"));
                return;
            }
            if (before) {
                admin.createTopics(List.of(new NewTopic("t", PARTITIONS, (short) 1))).all().get();
                try (var producer = new KafkaProducer<>(at, new StringSerializer(), new StringSerializer())) {
                    for (int r = 0; r < RECORDS * PARTITIONS; r++) {
                        producer.send(new ProducerRecord<>("t", r % PARTITIONS, null, "record " + r)).get();
                    }
                }
            }
            awaitLeaders(admin);
            var folders = folders(admin);
            var query = new HashMap<TopicPartition, OffsetSpec>();
            all.forEach(p -> query.put(p, OffsetSpec.latest()));
            var ends = new HashMap<TopicPartition, Long>();
            admin.listOffsets(query).all().get().forEach((p, end) -> ends.put(p, end.offset()));
            var read = read(at, all, ends);
            for (var p : all) {
                System.out.println("  " + args[0] + ": " + p + " in " + folders.get(p.partition()) + ", end offset "
                    + ends.get(p) + ", records read from the beginning " + read.get(p.partition()));
            }
            if (before) {
                expect(read.values().stream().allMatch(n -> n == RECORDS), "each partition has its records");
                expect(folders.values().stream().distinct().count() == 2, "partitions are in both folders");
                return;
            }
            String lost = args[2];
            for (var p : all) {
                boolean gone = (" " + lost + " ").contains(" " + p.partition() + " ");
                expect(ends.get(p) == (gone ? 0 : RECORDS), p + " ends at " + (gone ? 0 : RECORDS));
                expect(read.get(p.partition()) == (gone ? 0 : RECORDS), p + " is read to its end");
            }
            try (var producer = new KafkaProducer<>(at, new StringSerializer(), new StringSerializer())) {
                int p = Integer.parseInt(lost.split(" ")[0]);
                long offset = producer.send(new ProducerRecord<>("t", p, null, "new")).get().offset();
                System.out.println("  after: a new record for t-" + p + " gets offset " + offset);
                expect(offset == 0, "a new record is the first");
            }
        }
    }
}
JAVA

small=(-XX:+UseSerialGC "-Djava.io.tmpdir=$work")
ask() {
  java -Xmx256m "${small[@]}" -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp "$jars/*" "$work/Ask.java" "$@"
}
format() {
  java -Xmx512m "${small[@]}" -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp "$jars/*" kafka.tools.StorageTool format "$@" \
    --config "$home/server.properties" --cluster-id AAAAAAAAAAAAAAAAAAAAAQ >> "$home/format.log"
}
directory_id() { sed -n 's/^directory.id=//p' "$home/second/meta.properties"; }
free_port() {
  local port
  for port in $(shuf -i 20000-29999 -n 50); do
    if ! (: < "/dev/tcp/127.0.0.1/$port") 2>> "$work/ports.log"; then echo "$port"; return; fi
  done
  return 1
}
start() {
  java -Xmx512m "${small[@]}" -cp "$jars/*" kafka.Kafka "$home/server.properties" >> "$home/node.log" 2>&1 &
  node=$!
}
stop() {
  kill "$node"
  wait "$node" || [ $? = 143 ]
  node=
}

# Waits until the broker knows that the controller took the partitions to be in the new directory.
await_assigned() {
  local partition deadline=$((SECONDS + 60))
  for partition in $lost; do
    until grep -q -F " t-$partition " <(grep -F "directories=[$(directory_id)]" "$home/node.log"); do
      [ "$SECONDS" -lt "$deadline" ] || { echo "no longer so: the controller gets the new directory"; return 1; }
      sleep 0.2
    done
  done
}
# Runs it once, with the seconds between two leader balances, and what to do once the node is up again.
try() {
  home="$work/home-$version-$1"
  mkdir "$home"
  port=$(free_port)
  controller=$(free_port)
  cat > "$home/server.properties" <<CONFIG
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:$controller
log.dirs=$home/first,$home/second
metadata.log.dir=$home/first
leader.imbalance.check.interval.seconds=$1
CONFIG
  format --standalone
  id=$(directory_id)
  start
  ask before "127.0.0.1:$port"
  stop
  lost=$(cd "$home/second" && for folder in t-*; do echo "${folder#t-}"; done | sort -n | paste -sd ' ')
  rm -r "$home/second"
  mkdir "$home/second"
  format --ignore-formatted --standalone
  echo "  the directory of partitions $lost had the id $id and has $(directory_id)"
  [ "$id" != "$(directory_id)" ]
  start
  if [ "$2" = restart ]; then
    await_assigned
    ask soon "127.0.0.1:$port"
    stop
    start
  fi
  ask after "127.0.0.1:$port" "$lost"
  stop
  errors=$(grep -c -E '\] (ERROR|FATAL) ' "$home/node.log" || true)
  echo "  lines of the node's log at ERROR or above: $errors"
  [ "$errors" = 0 ]
}

for version in 4.3.1 4.4.0; do
  cat > "$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>finding</groupId><artifactId>finding</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
POM
  jars="$work/$version"
  mvn -q -B -Dstyle.color=never -f "$work/pom.xml" dependency:copy-dependencies -DoutputDirectory="$jars"
  echo "== Apache Kafka $version, a leader balance"
  try 5 wait
  echo "== Apache Kafka $version, another restart"
  try 300 restart
done
echo "as described"
