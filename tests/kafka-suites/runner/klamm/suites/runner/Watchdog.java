package klamm.suites.runner;

import java.time.Duration;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeUnit;

import org.junit.platform.engine.TestExecutionResult;
import org.junit.platform.launcher.TestExecutionListener;
import org.junit.platform.launcher.TestIdentifier;

/**
 * Interrupts a test, and what is done before and after it, whenever it has taken so long again. JUnit's own limit gives way to what a
 * class says of itself, and those of Kafka Streams say ten minutes.
 */
final class Watchdog implements TestExecutionListener {
    private final Duration limit;
    private final ScheduledExecutorService clock = Executors.newSingleThreadScheduledExecutor(task -> {
        Thread thread = new Thread(task, "watchdog");
        thread.setDaemon(true);
        return thread;
    });
    private ScheduledFuture<?> interruption;

    Watchdog(Duration limit) {
        this.limit = limit;
    }

    @Override
    public void executionStarted(TestIdentifier test) {
        if (test.isTest()) {
            long period = limit.toMillis();
            Thread running = Thread.currentThread();
            interruption = clock.scheduleAtFixedRate(running::interrupt, period, period, TimeUnit.MILLISECONDS);
        }
    }

    @Override
    public void executionFinished(TestIdentifier test, TestExecutionResult result) {
        if (test.isTest()) {
            interruption.cancel(false);
            // What came too late is not for the next one.
            Thread.interrupted();
        }
    }
}
