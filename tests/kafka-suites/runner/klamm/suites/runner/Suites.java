package klamm.suites.runner;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/** The test classes of some jars that start a cluster: all others test Kafka's own code and no broker. */
final class Suites {
    /** One of these in the constants of a class, or of a class that it extends, tells that it starts a cluster. */
    private static final List<String> CLUSTERS = List.of(
        "org/apache/kafka/common/test/ClusterInstance",
        "org/apache/kafka/common/test/KafkaClusterTestKit",
        "org/apache/kafka/streams/integration/utils/EmbeddedKafkaCluster",
        "org/apache/kafka/connect/util/clusters/Embedded");

    private Suites() {
    }

    /** Their names, the largest class first: who takes one at the end is soon done. */
    static List<String> in(List<String> jars, Pattern names) throws IOException {
        Map<String, Long> sizes = new TreeMap<>();
        for (String jar : jars) {
            try (JarFile file = new JarFile(jar)) {
                for (JarEntry entry : file.stream().collect(Collectors.toList())) {
                    String name = entry.getName().replace('/', '.').replaceAll("\\.class$", "");
                    if (entry.getName().endsWith("Test.class") && names.matcher(name).matches() && startsCluster(name)) {
                        sizes.put(name, entry.getSize());
                    }
                }
            }
        }
        List<String> found = new ArrayList<>(sizes.keySet());
        found.sort(Comparator.comparing(sizes::get).reversed());
        return found;
    }

    private static boolean startsCluster(String name) throws IOException {
        for (String ancestor : ancestors(name)) {
            String constants = new String(bytes(ancestor), StandardCharsets.ISO_8859_1);
            if (CLUSTERS.stream().anyMatch(constants::contains)) {
                return true;
            }
        }
        return false;
    }

    /** The class and those that it extends, as far as they belong to Kafka. */
    private static List<String> ancestors(String name) {
        List<String> ancestors = new ArrayList<>();
        try {
            Class<?> type = Class.forName(name, false, Suites.class.getClassLoader());
            for (; type != null && type.getName().contains("kafka"); type = type.getSuperclass()) {
                ancestors.add(type.getName());
            }
        } catch (ClassNotFoundException | LinkageError needsMore) {
            // Something that it extends is not on the class path: a unit test with a library of its own.
            return List.of();
        }
        return ancestors;
    }

    private static byte[] bytes(String name) throws IOException {
        String resource = name.replace('.', '/') + ".class";
        try (InputStream stream = Suites.class.getClassLoader().getResourceAsStream(resource)) {
            return stream.readAllBytes();
        }
    }
}
