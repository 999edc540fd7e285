#!/usr/bin/env bash
# An Apache Kafka controller takes invalid dynamic configs of its own that a broker refuses, and some of them put its
# valid ones out of force.
#
# Seen with org.apache.kafka:kafka_2.13 4.3.1 and 4.4.0: a node with process.roles=controller, asked through
# bootstrap.controllers for configs of its own id, as kafka-configs.sh --bootstrap-controller does. A broker answers each
# of the values below with INVALID_REQUEST; the controller says that each is done, and then (as DescribeConfigs tells):
#   - max.connections=abc replaces a valid max.connections=4000: the default (no limit) is in force, where the broker
#     would have kept 4000. Configs under other names stay in force.
#   - node.id=7, which is not dynamic, has no effect, nor has it on the others.
#   - num.network.threads=100, more than twice the current 3, is shown as the dynamic value and 3 is in force. From then on
#     each valid change of another config is done too, it says, but not in force: max.connections=5000 leaves
#     4000 in force. After a restart none of the node's valid dynamic configs is: max.connections is back at the default.
#     Deleting num.network.threads puts the others in force again.
#   - max.connections.per.ip.overrides=localhost (without a number) does as num.network.threads=100 does.
# The node's log at ERROR is the only word of it. A good guess was that the request fails, as a broker's does.
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
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidRequestException;

class Ask {
    static final String LIMIT = "max.connections";
    static final String NONE = "2147483647";
    static final ConfigResource NODE = new ConfigResource(ConfigResource.Type.BROKER, "1");

    final Admin admin;

    Ask(Admin admin) {
        this.admin = admin;
    }

    void set(String name, String value) throws Exception {
        var type = value == null ? AlterConfigOp.OpType.DELETE : AlterConfigOp.OpType.SET;
        var op = new AlterConfigOp(new ConfigEntry(name, value), type);
        admin.incrementalAlterConfigs(Map.of(NODE, List.of(op))).all().get();
        System.out.println("  " + (value == null ? "deleted " + name : name + "=" + value) + ": done, it says");
    }

    void refused(String name, String value) throws Exception {
        try {
            set(name, value);
        } catch (ExecutionException e) {
            if (e.getCause() instanceof InvalidRequestException) {
                System.out.println("  " + name + "=" + value + ": " + "INVALID_REQUEST");
                return;
            }
            throw e;
        }
        throw new AssertionError("no longer so: a broker refuses " + name + "=" + value);
    }

    ConfigEntry entry(String name) throws Exception {
        var options = new DescribeConfigsOptions().includeSynonyms(true);
        return admin.describeConfigs(List.of(NODE), options).all().get().get(NODE).get(name);
    }

    static String dynamic(ConfigEntry entry) {
        return entry.synonyms().stream()
            .filter(s -> s.source() == ConfigEntry.ConfigSource.DYNAMIC_BROKER_CONFIG)
            .map(ConfigEntry.ConfigSynonym::value).findFirst().orElse(null);
    }

    /** Waits until the node shows the dynamic value, then looks again for the one in force. */
    void expect(String name, String dynamic, String inForce) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
        while (!Objects.equals(dynamic(entry(name)), dynamic)) {
            if (System.nanoTime() > deadline) {
                throw new AssertionError("no longer so: " + name + " is shown with the dynamic value " + dynamic);
            }
            Thread.sleep(100);
        }
        String found = entry(name).value();
        System.out.println("    " + name + ": dynamic " + dynamic + ", in force " + found);
        if (!found.equals(inForce)) {
            throw new AssertionError("no longer so: " + name + " in force is " + inForce);
        }
    }

    public static void main(String[] args) throws Exception {
        try (var admin = Admin.create(Map.of(args[1], args[2]))) {
            var ask = new Ask(admin);
            switch (args[0]) {
                case "broker" -> {
                    ask.set(LIMIT, "4000");
                    ask.expect(LIMIT, "4000", "4000");
                    ask.refused(LIMIT, "abc");
                    ask.refused("node.id", "7");
                    ask.refused("num.network.threads", "100");
                    ask.refused("max.connections.per.ip.overrides", "localhost");
                    ask.set(LIMIT, "5000");
                    ask.expect(LIMIT, "5000", "5000");
                }
                case "controller" -> {
                    ask.set("max.connections.per.ip", "300");
                    ask.expect("max.connections.per.ip", "300", "300");
                    ask.set(LIMIT, "4000");
                    ask.expect(LIMIT, "4000", "4000");
                    ask.set(LIMIT, "abc");
                    ask.expect(LIMIT, null, NONE);
                    ask.expect("max.connections.per.ip", "300", "300");
                    ask.set("node.id", "7");
                    ask.set(LIMIT, "4000");
                    ask.expect(LIMIT, "4000", "4000");
                    ask.expect("node.id", null, "1");
                    ask.set("node.id", null);
                    ask.set("num.network.threads", "100");
                    ask.expect("num.network.threads", "100", "3");
                    ask.expect(LIMIT, "4000", "4000");
                    ask.set(LIMIT, "5000");
                    ask.expect(LIMIT, "5000", "4000");
                }
                case "threads-restarted" -> {
                    ask.expect(LIMIT, "5000", NONE);
                    ask.expect("max.connections.per.ip", "300", NONE);
                    ask.set("num.network.threads", null);
                    ask.expect("num.network.threads", null, "3");
                    ask.expect(LIMIT, "5000", "5000");
                    ask.expect("max.connections.per.ip", "300", "300");
                    ask.set("max.connections.per.ip.overrides", "localhost");
                    ask.expect("max.connections.per.ip.overrides", "localhost", "");
                    ask.expect(LIMIT, "5000", "5000");
                    ask.set(LIMIT, "6000");
                    ask.expect(LIMIT, "6000", "5000");
                }
                case "overrides-restarted" -> {
                    ask.expect(LIMIT, "6000", NONE);
                    ask.set("max.connections.per.ip.overrides", null);
                    ask.expect("max.connections.per.ip.overrides", null, "");
                    ask.expect(LIMIT, "6000", "6000");
                }
                default -> throw new IllegalArgumentException(args[0]);
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
  java -Xmx512m "${small[@]}" -cp "$jars/*" kafka.tools.StorageTool format --standalone \
    --config "$home/server.properties" --cluster-id AAAAAAAAAAAAAAAAAAAAAQ >> "$home/format.log" 2>&1 || { tail -n 3 "$home/format.log"; return 1; }
}
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
# Formats a node with the roles and listeners, and starts it.
new_node() {
  home="$work/home-$version-${1%%,*}"
  mkdir "$home"
  cat > "$home/server.properties" <<CONFIG
process.roles=$1
node.id=1
listeners=$2
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:$controller
log.dirs=$home/data
CONFIG
  format
  start
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
  port=$(free_port)
  controller=$(free_port)
  echo "== Apache Kafka $version, a broker"
  new_node broker,controller "PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller"
  ask broker bootstrap.servers "127.0.0.1:$port"
  stop
  echo "== Apache Kafka $version, a controller"
  new_node controller "CONTROLLER://127.0.0.1:$controller"
  ask controller bootstrap.controllers "127.0.0.1:$controller"
  stop
  start
  echo "  restarted"
  ask threads-restarted bootstrap.controllers "127.0.0.1:$controller"
  stop
  start
  echo "  restarted"
  ask overrides-restarted bootstrap.controllers "127.0.0.1:$controller"
  stop
done
echo "as described"
