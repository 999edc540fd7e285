package klamm.suites.runner;

import java.io.PrintStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Collectors;

import org.junit.platform.engine.TestExecutionResult;
import org.junit.platform.engine.TestExecutionResult.Status;
import org.junit.platform.engine.TestSource;
import org.junit.platform.engine.support.descriptor.ClassSource;
import org.junit.platform.engine.support.descriptor.MethodSource;
import org.junit.platform.launcher.TestExecutionListener;
import org.junit.platform.launcher.TestIdentifier;
import org.junit.platform.launcher.TestPlan;

/**
 * Tells what becomes of each method, a line each, with tabs between the fields.
 *
 * <pre>
 *   FOUND  class#method
 *   PASS   class#method  milliseconds
 *   FAIL   class#method  milliseconds  the error and its causes
 *   SKIP   class#method  the reason
 * </pre>
 *
 * FOUND is told of every method, also of those that are not to be run. A method that runs several times passes when it passes each
 * time, and is told of when its class has ended. Where the set-up of a class fails, all its methods do.
 */
final class Report implements TestExecutionListener {
    private static final int MESSAGE_LENGTH = 1_500;

    private final PrintStream out;
    private final Set<String> found = new HashSet<>();
    private final Map<String, Outcome> outcomes = new HashMap<>();
    private final Map<String, Long> begun = new HashMap<>();
    private TestPlan plan;

    private static final class Outcome {
        private long milliseconds;
        private String failure;
    }

    Report(PrintStream out) {
        this.out = out;
    }

    static Optional<String> method(TestSource source) {
        return Optional.of(source).filter(MethodSource.class::isInstance).map(MethodSource.class::cast)
            .map(method -> method.getClassName() + "#" + method.getMethodName());
    }

    private static Optional<String> method(TestIdentifier test) {
        return test.getSource().flatMap(Report::method);
    }

    void found(String method) {
        if (found.add(method)) {
            tell("FOUND", method);
        }
    }

    @Override
    public void testPlanExecutionStarted(TestPlan begins) {
        plan = begins;
    }

    @Override
    public void testPlanExecutionFinished(TestPlan ended) {
        outcomes.forEach((method, outcome) -> {
            String milliseconds = Long.toString(outcome.milliseconds);
            if (outcome.failure == null) {
                tell("PASS", method, milliseconds);
            } else {
                tell("FAIL", method, milliseconds, outcome.failure);
            }
        });
        outcomes.clear();
    }

    private void tell(String... fields) {
        out.println(String.join("\t", fields));
        out.flush();
    }

    @Override
    public void executionStarted(TestIdentifier test) {
        if (test.isTest()) {
            begun.put(test.getUniqueId(), System.nanoTime());
            System.err.println("BEGIN " + test.getUniqueId());
        }
    }

    @Override
    public void executionSkipped(TestIdentifier test, String reason) {
        method(test).ifPresent(method -> tell("SKIP", method, oneLine(reason)));
    }

    @Override
    public void executionFinished(TestIdentifier test, TestExecutionResult result) {
        Optional<String> method = method(test);
        boolean isClass = test.getSource().filter(ClassSource.class::isInstance).isPresent();
        if (method.isPresent()) {
            Long start = begun.remove(test.getUniqueId());
            note(method.get(), start == null ? 0 : (System.nanoTime() - start) / 1_000_000, result);
        } else if (isClass && result.getStatus() != Status.SUCCESSFUL) {
            plan.getDescendants(test).forEach(child -> method(child).ifPresent(name -> note(name, 0, result)));
        }
    }

    private void note(String method, long milliseconds, TestExecutionResult result) {
        Outcome outcome = outcomes.computeIfAbsent(method, any -> new Outcome());
        outcome.milliseconds += milliseconds;
        if (result.getStatus() != Status.SUCCESSFUL) {
            result.getThrowable().ifPresent(Throwable::printStackTrace);
            if (outcome.failure == null) {
                outcome.failure = result.getThrowable().map(Report::told).orElse(result.getStatus().toString());
            }
        }
    }

    /** The error and its causes, with the lines of the test itself. */
    private static String told(Throwable error) {
        StringWriter trace = new StringWriter();
        error.printStackTrace(new PrintWriter(trace));
        String told = Arrays.stream(trace.toString().split("\n"))
            .filter(line -> !line.startsWith("\tat ") || line.contains("Test.") || line.contains("klamm."))
            .map(String::strip).collect(Collectors.joining(" | "));
        return oneLine(told.substring(0, Math.min(told.length(), MESSAGE_LENGTH)));
    }

    private static String oneLine(String text) {
        return text.replaceAll("[\\t\\r\\n]+", " ");
    }
}
