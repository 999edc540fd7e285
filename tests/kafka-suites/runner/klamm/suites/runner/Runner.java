package klamm.suites.runner;

import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.function.Predicate;
import java.util.regex.Pattern;

import org.junit.platform.engine.FilterResult;
import org.junit.platform.engine.TestDescriptor;
import org.junit.platform.engine.discovery.DiscoverySelectors;
import org.junit.platform.launcher.Launcher;
import org.junit.platform.launcher.LauncherDiscoveryRequest;
import org.junit.platform.launcher.PostDiscoveryFilter;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;

/**
 * Runs the test methods of Kafka's suites: {@code Runner JARS CLASSES METHODS CLAIMS LIMIT}.
 *
 * <ul>
 *   <li>JARS, separated by colons, hold the test classes;
 *   <li>CLASSES is a regular expression for their names;
 *   <li>METHODS is a file with a line {@code class#method} for each method that is left out ({@code -} before it), or, if
 *       there is any such line, for each that is to be run ({@code +} before it);
 *   <li>CLAIMS is a directory that several runners share: each takes a class, or a part of the chosen methods of one, that no
 *       other has taken;
 *   <li>LIMIT is how many seconds a method may take.
 * </ul>
 *
 * What happens is told on the standard output, see {@link Report}.
 */
public final class Runner {
    /** How many chosen methods of a class one runner takes at once: those that are known to fail may all wait in vain. */
    private static final int CHOSEN_AT_ONCE = 8;

    /** How long it may take to make a class ready, the cluster of all its tests for instance. */
    private static final String CLASS_LIMIT = "240s";

    private final Set<String> leftOut = new HashSet<>();
    private final Set<String> chosen = new HashSet<>();
    private final Report report;
    private final Watchdog watchdog;

    private Runner(Path methods, Duration limit, Report report) throws IOException {
        this.watchdog = new Watchdog(limit);
        this.report = report;
        for (String line : Files.readAllLines(methods)) {
            (line.startsWith("+") ? chosen : leftOut).add(line.substring(1));
        }
    }

    public static void main(String[] arguments) throws IOException, ReflectiveOperationException {
        PrintStream out = System.out;
        // Tests print; only the report belongs to the standard output.
        System.setOut(System.err);
        List<String> jars = Arrays.asList(arguments[0].split(":"));
        Path claims = Path.of(arguments[3]);
        Duration limit = Duration.ofSeconds(Long.parseLong(arguments[4]));
        Runner runner = new Runner(Path.of(arguments[2]), limit, new Report(out));
        NoExit guard = NoExit.begin();
        Launcher launcher = LauncherFactory.create();
        for (String name : Suites.in(jars, Pattern.compile(arguments[1]))) {
            int number = 0;
            for (Predicate<String> part : runner.parts(name)) {
                if (claim(claims.resolve(name + "." + number++))) {
                    launcher.execute(runner.request(name, part), runner.report, runner.watchdog);
                    killNodes();
                }
            }
        }
        guard.exit();
    }

    /** Ends the nodes of tests that were interrupted before they did. Kafka's own kit has none. */
    private static void killNodes() throws ReflectiveOperationException {
        try {
            Class.forName("klamm.suites.NodeProcess").getMethod("killAll").invoke(null);
        } catch (ClassNotFoundException oracle) {
            // Its brokers are threads.
        }
    }

    /** The methods of a class that are to be run, in parts that are claimed one by one. */
    private List<Predicate<String>> parts(String name) {
        if (chosen.isEmpty()) {
            return List.of(method -> !leftOut.contains(method));
        }
        List<String> methods = chosen.stream().filter(method -> method.startsWith(name + "#")).sorted().toList();
        List<Predicate<String>> parts = new ArrayList<>();
        for (int first = 0; first < methods.size(); first += CHOSEN_AT_ONCE) {
            Set<String> part = Set.copyOf(methods.subList(first, Math.min(first + CHOSEN_AT_ONCE, methods.size())));
            parts.add(part::contains);
        }
        return parts;
    }

    private static boolean claim(Path path) throws IOException {
        try {
            Files.createFile(path);
            return true;
        } catch (FileAlreadyExistsException taken) {
            return false;
        }
    }

    private LauncherDiscoveryRequest request(String name, Predicate<String> wanted) {
        PostDiscoveryFilter methods = descriptor -> FilterResult.includedIf(isWanted(descriptor, wanted));
        return LauncherDiscoveryRequestBuilder.request()
            .selectors(DiscoverySelectors.selectClass(name))
            .filters(methods)
            // Kafka's cluster tests find their extension this way.
            .configurationParameter("junit.jupiter.extensions.autodetection.enabled", "true")
            .configurationParameter("junit.jupiter.execution.timeout.lifecycle.method.default", CLASS_LIMIT)
            .build();
    }

    private boolean isWanted(TestDescriptor descriptor, Predicate<String> wanted) {
        return descriptor.getSource().flatMap(Report::method).map(method -> {
            report.found(method);
            return wanted.test(method);
        }).orElse(true);
    }
}
