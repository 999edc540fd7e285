package org.apache.kafka.common.test.junit;

import java.util.List;

import klamm.suites.ProcessCluster;

import org.apache.kafka.common.test.api.ClusterConfig;

import org.junit.jupiter.api.extension.AfterTestExecutionCallback;
import org.junit.jupiter.api.extension.BeforeEachCallback;
import org.junit.jupiter.api.extension.Extension;
import org.junit.jupiter.api.extension.TestTemplateInvocationContext;

/** One run of a cluster test. It has the name of Kafka's own class and comes before it on the class path. */
public class RaftClusterInvocationContext implements TestTemplateInvocationContext {
    private final String method;
    private final ClusterConfig config;
    private final boolean isCombined;

    public RaftClusterInvocationContext(String method, ClusterConfig config, boolean isCombined) {
        this.method = method;
        this.config = config;
        this.isCombined = isCombined;
    }

    @Override
    public String getDisplayName(int number) {
        String kind = isCombined ? "combined" : "isolated";
        return method + " [" + number + "] " + kind + " " + String.join(",", config.displayTags());
    }

    @Override
    public List<Extension> getAdditionalExtensions() {
        ProcessCluster cluster = new ProcessCluster(config, isCombined);
        BeforeEachCallback begin = context -> {
            cluster.format();
            if (config.isAutoStart()) {
                cluster.start();
            }
        };
        AfterTestExecutionCallback end = context -> cluster.stop();
        return List.of(begin, end, new ClusterInstanceParameterResolver(cluster));
    }
}
