package klamm.suites;

import java.util.concurrent.Callable;

/** Waiting for what a node does, with a deadline. */
final class Wait {
    private static final long POLL_MS = 10;

    private Wait() {
    }

    /** Asks until the answer is yes; an answer that throws is a no. */
    static void until(String what, long limitMs, Callable<Boolean> probe) throws InterruptedException {
        long deadline = System.nanoTime() + limitMs * 1_000_000;
        Exception last = null;
        do {
            try {
                if (probe.call()) {
                    return;
                }
                last = null;
            } catch (InterruptedException stopped) {
                throw stopped;
            } catch (Exception notYet) {
                last = notYet;
            }
            Thread.sleep(POLL_MS);
        } while (System.nanoTime() < deadline);
        throw new AssertionError("waited " + limitMs + " ms in vain for " + what, last);
    }
}
