package klamm.suites.runner;

import java.security.Permission;
import java.security.Policy;
import java.security.ProtectionDomain;

/**
 * Forbids tests to end the JVM, as a tool does that is called with wrong arguments: what other tests had to tell would be lost. The calling test
 * fails instead.
 */
@SuppressWarnings("removal")
final class NoExit extends SecurityManager {
    private boolean isOver;

    /** From now on nobody may end the JVM but by {@link #exit}. */
    static NoExit begin() {
        NoExit guard = new NoExit();
        // The JMX server asks the policy itself.
        Policy.setPolicy(new Policy() {
            @Override
            public boolean implies(ProtectionDomain domain, Permission permission) {
                return true;
            }
        });
        System.setSecurityManager(guard);
        return guard;
    }

    /** Ends the JVM, with all threads that tests have left behind. */
    void exit() {
        isOver = true;
        System.exit(0);
    }

    @Override
    public void checkExit(int status) {
        if (!isOver) {
            throw new SecurityException("a test would have ended the JVM with status " + status);
        }
    }

    @Override
    public void checkPermission(Permission permission) {
        // All else is allowed.
    }
}
