package klamm.suites;

import java.util.HashMap;
import java.util.Map;

import org.apache.kafka.clients.admin.Admin;

/** Clients of a kit's cluster. */
public final class KitClients {
    private KitClients() {
    }

    /** One of the two addresses is null. */
    public static Admin admin(Map<String, Object> configs, String brokers, String controllers) {
        Map<String, Object> all = new HashMap<>(configs);
        if (brokers != null) {
            all.putIfAbsent("bootstrap.servers", brokers);
            all.remove("bootstrap.controllers");
        } else {
            all.putIfAbsent("bootstrap.controllers", controllers);
            all.remove("bootstrap.servers");
        }
        return Admin.create(all);
    }
}
