// Prints Apache Kafka's config tables as the facts of metadata/src/config_def/kafka.tsv.
//
//   java -cp "$KAFKA_LIBS/*" tools/config-facts/ConfigFacts.java > metadata/src/config_def/kafka.tsv
//
// KAFKA_LIBS is a folder with the jars of Apache Kafka 4.3.1 (a distribution's libs/, or what the tests' pom.xml fetches).
// Only facts leave this program: names, types, defaults, ranges, update modes. Kafka's documentation text is not printed.
//
// One key a line, columns separated by tabs:
//   scope       broker, topic, group, client-metrics
//   name
//   type        of ConfigDef.Type
//   default     null, or the value as ConfigDef.convertToString prints it, "" when that is empty
//   importance  HIGH, MEDIUM, LOW
//   update      read-only, per-broker or cluster-wide (broker keys; others are always dynamic: -)
//   flags       internal, dynamic-only (a key that only Alter*Configs may set), or -
//   valid       the validator, see valid() below; - when any value of the type will do
// Keys keep the order of their ConfigDef: the first invalid one is the one that Kafka reports.

import java.lang.reflect.Field;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.StringJoiner;
import java.util.TreeMap;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.coordinator.group.GroupConfig;
import org.apache.kafka.raft.QuorumConfig;
import org.apache.kafka.server.config.AbstractKafkaConfig;
import org.apache.kafka.server.config.DynamicBrokerConfig;
import org.apache.kafka.server.config.QuotaConfig;
import org.apache.kafka.server.metrics.ClientMetricsConfigs;
import org.apache.kafka.storage.internals.log.LogConfig;

public class ConfigFacts {
    public static void main(String[] args) throws Exception {
        System.out.println("scope\tname\ttype\tdefault\timportance\tupdate\tflags\tvalid");
        Map<String, String> modes = DynamicBrokerConfig.dynamicConfigUpdateModes();
        Set<String> statics = AbstractKafkaConfig.CONFIG_DEF.names();
        Map<String, ConfigDef.ConfigKey> broker = new LinkedHashMap<>(AbstractKafkaConfig.CONFIG_DEF.configKeys());
        new TreeMap<>(QuotaConfig.brokerQuotaConfigs().configKeys()).forEach(broker::putIfAbsent);
        for (ConfigDef.ConfigKey key : broker.values())
            print("broker", key, modes.getOrDefault(key.name, "read-only"), !statics.contains(key.name));
        for (ConfigDef.ConfigKey key : LogConfig.configKeys().values())
            print("topic", key, "-", false);
        for (ConfigDef.ConfigKey key : GroupConfig.CONFIG_DEF.configKeys().values())
            print("group", key, "-", false);
        for (ConfigDef.ConfigKey key : ClientMetricsConfigs.configDef().configKeys().values())
            print("client-metrics", key, "-", false);
    }

    private static void print(String scope, ConfigDef.ConfigKey key, String update, boolean dynamicOnly) throws Exception {
        if (!key.hasDefault() && key.defaultValue == null)
            throw new IllegalStateException(key.name + " has neither a default nor a null one");
        String value = key.hasDefault() ? ConfigDef.convertToString(key.defaultValue, key.type) : "required";
        if (value == null) value = "null";
        else if (value.isEmpty()) value = "\"\"";
        String flags = key.internalConfig ? "internal" : dynamicOnly ? "dynamic-only" : "-";
        System.out.println(String.join("\t", scope, key.name, key.type.toString(), value, key.importance.toString(),
            update, flags, valid(key.validator)));
    }

    // at-least:N | between:N,M | between-or:N,M,O | in:a,b | in-ignoring-case:a,b | list:empty|non-empty,null|non-null[:a,b]
    // | non-null | non-empty | code:NAME for a validator that is code.
    // Strings keep the order in which Kafka's error message lists them.
    private static String valid(ConfigDef.Validator validator) throws Exception {
        if (validator == null) return "-";
        switch (validator.getClass().getSimpleName()) {
            case "Range": {
                Object min = field(validator, "min"), max = field(validator, "max");
                return max == null ? "at-least:" + min : "between:" + min + "," + max;
            }
            case "ValidString":
                return "in:" + join(field(validator, "validStrings"));
            case "CaseInsensitiveValidString":
                return "in-ignoring-case:" + join(field(validator, "validStrings"));
            case "ValidList": {
                String strings = join(field(field(validator, "validString"), "validStrings"));
                return "list:" + (field(validator, "isEmptyAllowed").equals(true) ? "empty" : "non-empty")
                    + "," + (field(validator, "isNullAllowed").equals(true) ? "null" : "non-null")
                    + (strings.isEmpty() ? "" : ":" + strings);
            }
            case "NonNullValidator":
                return "non-null";
            case "NonEmptyString":
                return "non-empty";
            case "LambdaValidator": // CompressionType.GZIP's level: "[1,...,9] or -1"
                return validator.toString().replaceFirst("^\\[(-?\\d+),\\.\\.\\.,(-?\\d+)\\] or (-?\\d+)$", "between-or:$1,$2,$3");
            default:
                Class<?> owner = validator.getClass().getEnclosingClass();
                return "code:" + (owner == null ? validator.getClass() : owner).getSimpleName()
                    + (owner == QuorumConfig.class ? "." + validator.getClass().getSimpleName() : "");
        }
    }

    private static Object field(Object owner, String name) throws Exception {
        Field field = owner.getClass().getDeclaredField(name);
        field.setAccessible(true);
        return field.get(owner);
    }

    private static String join(Object strings) {
        StringJoiner joined = new StringJoiner(",");
        for (Object string : (java.util.Collection<?>) strings) joined.add(string.toString());
        return joined.toString();
    }
}
