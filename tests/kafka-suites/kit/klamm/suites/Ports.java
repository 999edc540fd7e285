package klamm.suites;

import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * TCP ports on which nobody listens, each given away once. They lie below Linux's range for outgoing connections, so that none of
 * those takes a port between its choice and its use, or while its node is down.
 */
final class Ports {
    private static final int FIRST = 15_000;
    private static final int COUNT = 15_000;
    /** Processes that run at once start their search this far from one another. */
    private static final int PER_PROCESS = 97;
    private static final AtomicInteger NEXT = new AtomicInteger((int) (ProcessHandle.current().pid() * PER_PROCESS % COUNT));

    private Ports() {
    }

    static int free() {
        for (int tried = 0; tried < COUNT; tried++) {
            int port = FIRST + NEXT.getAndIncrement() % COUNT;
            if (isFree(port)) {
                return port;
            }
        }
        throw new IllegalStateException("none of " + COUNT + " ports is free");
    }

    private static boolean isFree(int port) {
        try (ServerSocket ignored = new ServerSocket(port, 1, InetAddress.getByName("localhost"))) {
            return true;
        } catch (IOException taken) {
            return false;
        }
    }
}
