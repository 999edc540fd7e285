package klamm.suites;

import java.io.File;
import java.io.IOException;
import java.io.Writer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;

/**
 * A node of the broker under test: one process, which has the broker's role, the controller's or both. It is ended by its own id,
 * and does not outlive this JVM.
 */
public final class NodeProcess {
    /** The program: {@code -Dklamm.binary=path}. */
    private static final String BINARY = System.getProperty("klamm.binary");
    private static final String FILE = "server.properties";
    private static final String FILE_WITHOUT_BROKER = "controller.properties";
    private static final long STOP_LIMIT_S = 20;
    private static final int LOG_LINES_SHOWN = 25;
    /** Blocks on a pipe that only this JVM holds, and ends the node when that closes. */
    private static final String GUARD = "trap '' HUP INT TERM; read -r _; kill -9 \"$1\"";

    private static final Set<NodeProcess> RUNNING = ConcurrentHashMap.newKeySet();

    private final int id;
    private final Path home;
    private Process process;
    private Process guard;
    private boolean wasStarted;
    private boolean hasBroker = true;
    /** Why the node ended without having been asked to. */
    private String fault;

    NodeProcess(int id, Path home, NodeConfiguration configuration) throws IOException {
        this.id = id;
        this.home = home;
        Files.createDirectories(home);
        write(FILE, configuration.properties());
        write(FILE_WITHOUT_BROKER, configuration.propertiesWithoutBroker());
    }

    private void write(String file, Map<String, String> configuration) throws IOException {
        Properties properties = new Properties();
        properties.putAll(configuration);
        try (Writer writer = Files.newBufferedWriter(home.resolve(file))) {
            properties.store(writer, null);
        }
    }

    /** Starts it, unless it runs. */
    synchronized void spawn() {
        if (!isRunning()) {
            start(FILE);
            hasBroker = true;
        }
    }

    /** Starts it as a controller only. */
    synchronized void spawnWithoutBroker() {
        start(FILE_WITHOUT_BROKER);
        hasBroker = false;
    }

    private void start(String file) {
        wasStarted = true;
        File log = home.resolve("log").toFile();
        try {
            process = new ProcessBuilder(BINARY, home.resolve(file).toString())
                .directory(home.toFile())
                .redirectInput(ProcessBuilder.Redirect.from(new File("/dev/null")))
                .redirectErrorStream(true)
                .redirectOutput(ProcessBuilder.Redirect.appendTo(log))
                .start();
            guard = new ProcessBuilder("sh", "-c", GUARD, "guard", Long.toString(process.pid())).start();
            RUNNING.add(this);
        } catch (IOException error) {
            throw new IllegalStateException("node " + id + " cannot be started as " + BINARY, error);
        }
    }

    synchronized boolean wasStarted() {
        return wasStarted;
    }

    synchronized boolean isRunning() {
        return process != null && process.isAlive();
    }

    /** Whether it runs and has the role of a broker. */
    synchronized boolean isBrokerRunning() {
        return isRunning() && hasBroker;
    }

    /** Asks it to stop (SIGTERM). */
    synchronized void terminate() {
        noticeEnd();
        if (process != null) {
            process.destroy();
        }
    }

    /** Waits for the end of a node that was asked to stop; one that does not is killed, and that is a fault. */
    synchronized void awaitEnd() {
        if (process == null) {
            return;
        }
        try {
            if (!process.waitFor(STOP_LIMIT_S, TimeUnit.SECONDS)) {
                fault = "node " + id + " did not stop within " + STOP_LIMIT_S + " s" + lastLines();
            }
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
        kill();
    }

    /** Ends it without notice. */
    synchronized void kill() {
        if (process == null) {
            return;
        }
        // Before the node's id is free for another process.
        guard.destroyForcibly();
        process.destroyForcibly();
        process = null;
        guard = null;
        RUNNING.remove(this);
    }

    /** Ends what tests have left running that were interrupted. */
    public static void killAll() {
        RUNNING.forEach(NodeProcess::kill);
    }

    /** Why it ended, or had to be ended, though nobody wanted it; null when all is well. */
    synchronized String fault() {
        noticeEnd();
        return fault;
    }

    /** Throws when it has ended. */
    synchronized void requireRunning() {
        noticeEnd();
        if (process == null || !process.isAlive()) {
            throw new IllegalStateException(fault == null ? "node " + id + " was stopped" : fault);
        }
    }

    private void noticeEnd() {
        if (process != null && !process.isAlive() && fault == null) {
            fault = "node " + id + " ended by itself with status " + process.exitValue() + lastLines();
        }
    }

    private String lastLines() {
        try {
            List<String> lines = Files.readAllLines(home.resolve("log"));
            List<String> last = lines.subList(Math.max(0, lines.size() - LOG_LINES_SHOWN), lines.size());
            return "; its log ends with\n  " + String.join("\n  ", last);
        } catch (IOException unreadable) {
            return "; its log cannot be read: " + unreadable;
        }
    }
}
