package klamm.suites;

import java.lang.reflect.InvocationHandler;
import java.lang.reflect.Proxy;
import java.util.Map;

import org.mockito.Mockito;
import org.mockito.stubbing.Answer;

/** What a test may ask of a broker in its own JVM and never of a process. */
final class Internals {
    private Internals() {
    }

    static UnsupportedOperationException ask(String what) {
        return new UnsupportedOperationException("reads the JVM broker's internals: " + what);
    }

    /** An implementation of {@code type} in which every method that {@code answers} does not know refuses. */
    static <T> T proxy(Class<T> type, Answers answers) {
        InvocationHandler handler = (proxy, method, arguments) -> {
            switch (method.getName()) {
                case "toString":
                    return "a process's " + type.getSimpleName();
                case "hashCode":
                    return System.identityHashCode(proxy);
                case "equals":
                    return proxy == arguments[0];
                default:
                    return answers.to(method.getName(), arguments == null ? new Object[0] : arguments);
            }
        };
        return type.cast(Proxy.newProxyInstance(type.getClassLoader(), new Class<?>[] {type}, handler));
    }

    /** An object of a class of the broker's, of which only the methods named answer. */
    static <T> T only(Class<T> type, Map<String, Known> known) {
        return Mockito.mock(type, (Answer<Object>) call -> {
            String called = call.getMethod().getName();
            if (known.containsKey(called)) {
                return known.get(called).answer(call.getArguments());
            }
            // Scala keeps the default values of arguments in methods of their own: isFuture = false.
            if (called.equals("getLog$default$2")) {
                return false;
            }
            throw ask(type.getSimpleName() + "." + called);
        });
    }

    interface Known {
        Object answer(Object[] arguments);
    }

    interface Answers {
        Object to(String method, Object[] arguments) throws Exception;
    }
}
