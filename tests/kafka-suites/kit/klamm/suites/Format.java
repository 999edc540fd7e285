package klamm.suites;

import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;

import org.apache.kafka.metadata.bootstrap.BootstrapMetadata;
import org.apache.kafka.metadata.properties.MetaProperties;
import org.apache.kafka.metadata.properties.MetaPropertiesEnsemble;
import org.apache.kafka.metadata.properties.PropertiesUtils;
import org.apache.kafka.metadata.storage.Formatter;
import org.apache.kafka.raft.DynamicVoters;
import org.apache.kafka.server.common.Feature;
import org.apache.kafka.server.common.MetadataVersion;

/** Directories as {@code kafka-storage format} makes them, with the feature levels that the test asks for, as far as Klamm has them. */
public final class Format {
    private static final MetadataVersion NEWEST = MetadataVersion.IBP_4_3_IV0;
    /** A broker of Klamm does not join a cluster in which these are finalized at a higher level. */
    private static final Map<String, Short> AT_MOST = Map.of("share.version", (short) 0, "streams.version", (short) 0);

    private Format() {
    }

    /** @param initialVoters {@code id@host:port:directory,...}, empty for none, null where the voters are in the configuration */
    public static void node(MetaPropertiesEnsemble directories, BootstrapMetadata features, String listener, String initialVoters)
        throws Exception {
        for (String directory : directories.logDirProps().keySet()) {
            Files.createDirectories(Path.of(directory));
        }
        Formatter formatter = new Formatter()
            .setPrintStream(new PrintStream(OutputStream.nullOutputStream()))
            .setNodeId(directories.nodeId().getAsInt())
            .setClusterId(directories.clusterId().get())
            .setDirectories(directories.logDirProps().keySet())
            .setMetadataLogDirectory(directories.metadataLogDir().get())
            .setUnstableFeatureVersionsEnabled(true)
            .setControllerListenerName(listener);
        MetadataVersion version = features.metadataVersion();
        formatter.setReleaseVersion(version.featureLevel() > NEWEST.featureLevel() ? NEWEST : version);
        for (Feature feature : Feature.PRODUCTION_FEATURES) {
            String name = feature.featureName();
            // The quorum's own level follows from where the voters are.
            if (!name.equals("kraft.version")) {
                short asked = features.featureLevel(name);
                formatter.setFeatureLevel(name, (short) Math.min(asked, AT_MOST.getOrDefault(name, asked)));
            }
        }
        if (initialVoters != null) {
            formatter.setHasDynamicQuorum(true);
            if (!initialVoters.isEmpty()) {
                formatter.setInitialControllers(DynamicVoters.parse(initialVoters));
            }
        }
        formatter.run();
        // With the directory ids that the test knows.
        for (Map.Entry<String, MetaProperties> entry : directories.logDirProps().entrySet()) {
            String file = Path.of(entry.getKey(), MetaPropertiesEnsemble.META_PROPERTIES_NAME).toString();
            PropertiesUtils.writePropertiesFile(entry.getValue().toProperties(), file, false);
        }
    }
}
