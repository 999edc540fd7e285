#!/usr/bin/env bash
# Apache Kafka's config providers (KIP-297, KIP-421) never fail on a placeholder that they cannot resolve.
#
# Seen with org.apache.kafka:kafka-clients 4.3.1 and 4.4.0, asked through ConfigTransformer, as brokers, Connect and clients do:
#   - ${file:path:key} with a key that the file does not have keeps its text, without a word: a misspelt
#     key makes the literal "${file:...}" the password.
#   - ${file:path:key} of a file outside of allowed.paths keeps its text too; a line of the log at WARN is all.
#   - ${directory:path:file} keeps the newline at the end of the file, which editors and `echo` write: the secret is one
#     character longer than it looks. ${file:path:key} of a properties file has none.
# A good guess for each was an error, or the value without its newline.
# Needs: bash, Maven, a JDK of 17 or later. Takes its jars from Maven Central into a temporary folder.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/Ask.java" <<'JAVA'
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.apache.kafka.common.config.ConfigTransformer;
import org.apache.kafka.common.config.provider.ConfigProvider;
import org.apache.kafka.common.config.provider.DirectoryConfigProvider;
import org.apache.kafka.common.config.provider.FileConfigProvider;

class Ask {
    static String resolved(ConfigProvider provider, String value) {
        return new ConfigTransformer(Map.of("p", provider)).transform(Map.of("key", value)).data().get("key");
    }

    static void expect(String what, String expected, String found) {
        System.out.println(what + ": " + found.replace("\n", "\\n"));
        if (!expected.equals(found)) {
            throw new AssertionError(what + ": expected " + expected + ", found " + found);
        }
    }

    public static void main(String[] args) throws Exception {
        Path inside = Files.createTempDirectory("inside");
        Path outside = Files.createTempDirectory("outside");
        Path secrets = Files.writeString(inside.resolve("secrets.properties"), "password=abc\n");
        Path foreign = Files.writeString(outside.resolve("secrets.properties"), "password=abc\n");
        Files.writeString(inside.resolve("password"), "abc\n");
        var files = new FileConfigProvider();
        files.configure(Map.of("allowed.paths", inside.toString()));
        expect("a key that is there", "abc", resolved(files, "${p:" + secrets + ":password}"));
        String misspelt = "${p:" + secrets + ":pasword}";
        expect("a key that is not there", misspelt, resolved(files, misspelt));
        String forbidden = "${p:" + foreign + ":password}";
        expect("a path that is not allowed", forbidden, resolved(files, forbidden));
        var directories = new DirectoryConfigProvider();
        directories.configure(Map.of());
        expect("a file of one line", "abc\n", resolved(directories, "${p:" + inside + ":password}"));
    }
}
JAVA
for version in 4.3.1 4.4.0; do
  cat > "$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>finding</groupId><artifactId>finding</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-clients</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
POM
  mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies -DoutputDirectory="$work/$version"
  echo "== kafka-clients $version"
  java -Djava.io.tmpdir="$work" -cp "$work/$version/*" "$work/Ask.java"
done
echo "as described"
