package klamm.suites;

import java.io.IOException;
import java.util.Map;
import java.util.concurrent.CompletableFuture;

import kafka.network.SocketServer;
import kafka.raft.KafkaRaftManager;
import kafka.server.ControllerServer;
import kafka.server.KafkaRaftServer;
import kafka.server.SharedServer;

import org.apache.kafka.common.network.ListenerName;
import org.apache.kafka.controller.Controller;
import org.apache.kafka.metadata.bootstrap.BootstrapMetadata;
import org.apache.kafka.server.common.ApiMessageAndVersion;

/** What tests take for a controller of their own JVM, and is a process. */
public final class ProcessController extends ControllerServer {
    private static final long START_LIMIT_MS = 60_000;

    private final NodeProcess process;
    private final Map<String, Integer> ports;
    private final int port;
    private final Controller controller;

    public ProcessController(
        SharedServer shared,
        BootstrapMetadata bootstrap,
        NodeProcess process,
        Map<String, Integer> ports,
        ListenerName listener
    ) {
        super(shared, KafkaRaftServer.configSchema(), bootstrap);
        this.process = process;
        this.ports = ports;
        this.port = ports.get(listener.value());
        this.controller = Internals.proxy(Controller.class, this::answer);
    }

    private Object answer(String method, Object[] arguments) throws Exception {
        switch (method) {
            case "isActive":
                return isActive();
            case "waitForReadyBrokers":
                // The kit waits for each broker itself.
                return CompletableFuture.completedFuture(null);
            default:
                throw Internals.ask("controller." + method);
        }
    }

    /** Whether this controller takes itself for the active one. */
    public boolean isActive() throws IOException {
        return Quorum.leader(port).isLeader(config().nodeId());
    }

    /** The end of the committed metadata log, if this is the active controller; 0 where it is not, or does not run. */
    public long committedEnd() throws IOException {
        return process.isRunning() ? Quorum.committedEnd(port) : 0;
    }

    public void spawn() {
        process.spawn();
    }

    /** Waits until the controller listens. */
    public void awaitStart() {
        try {
            Wait.until("controller " + config().nodeId() + " to listen", START_LIMIT_MS, () -> {
                if (process.isRunning()) {
                    isActive();
                }
                return true;
            });
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
        process.requireRunning();
    }

    @Override
    public void startup() {
        spawn();
        awaitStart();
    }

    @Override
    public void shutdown() {
        process.terminate();
        process.awaitEnd();
    }

    @Override
    public void awaitShutdown() {
        process.awaitEnd();
    }

    @Override
    public SocketServer socketServer() {
        return Internals.only(SocketServer.class,
            Map.of("config", arguments -> config(), "boundPort", arguments -> boundPort((ListenerName) arguments[0])));
    }

    public int boundPort() {
        return port;
    }

    private int boundPort(ListenerName listener) {
        return ports.get(listener.value());
    }

    @Override
    public KafkaRaftManager<ApiMessageAndVersion> raftManager() {
        return Quorum.manager(port);
    }

    @Override
    public Controller controller() {
        return controller;
    }
}
