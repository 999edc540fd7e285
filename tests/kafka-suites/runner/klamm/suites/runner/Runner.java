package klamm.suites.runner;

import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
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
 *   <li>CLAIMS is a directory that several runners share: each takes a class that no other has taken;
 *   <li>LIMIT is how long a method may take, as JUnit writes it ({@code 60s}).
 * </ul>
 *
 * What happens is told on the standard output, see {@link Report}.
 */
public final class Runner {
    private final Set<String> leftOut = new HashSet<>();
    private final Set<String> chosen = new HashSet<>();
    private final String limit;
    private final Report report;

    private Runner(Path methods, String limit, Report report) throws IOException {
        this.limit = limit;
        this.report = report;
        for (String line : Files.readAllLines(methods)) {
            (line.startsWith("+") ? chosen : leftOut).add(line.substring(1));
        }
    }

    public static void main(String[] arguments) throws IOException {
        PrintStream out = System.out;
        // Tests print; only the report belongs to the standard output.
        System.setOut(System.err);
        List<String> jars = Arrays.asList(arguments[0].split(":"));
        Path claims = Path.of(arguments[3]);
        Runner runner = new Runner(Path.of(arguments[2]), arguments[4], new Report(out));
        NoExit guard = NoExit.begin();
        Launcher launcher = LauncherFactory.create();
        for (String name : Suites.in(jars, Pattern.compile(arguments[1]))) {
            if (runner.isClassChosen(name) && claim(claims.resolve(name))) {
                launcher.execute(runner.request(name), runner.report);
            }
        }
        guard.exit();
    }

    private boolean isClassChosen(String name) {
        return chosen.isEmpty() || chosen.stream().anyMatch(method -> method.startsWith(name + "#"));
    }

    private static boolean claim(Path path) throws IOException {
        try {
            Files.createFile(path);
            return true;
        } catch (FileAlreadyExistsException taken) {
            return false;
        }
    }

    private LauncherDiscoveryRequest request(String name) {
        PostDiscoveryFilter methods = descriptor -> FilterResult.includedIf(isWanted(descriptor));
        return LauncherDiscoveryRequestBuilder.request()
            .selectors(DiscoverySelectors.selectClass(name))
            .filters(methods)
            // Kafka's cluster tests find their extension this way.
            .configurationParameter("junit.jupiter.extensions.autodetection.enabled", "true")
            .configurationParameter("junit.jupiter.execution.timeout.default", limit)
            .build();
    }

    private boolean isWanted(TestDescriptor descriptor) {
        return descriptor.getSource().flatMap(Report::method).map(method -> {
            report.found(method);
            return chosen.isEmpty() ? !leftOut.contains(method) : chosen.contains(method);
        }).orElse(true);
    }
}
