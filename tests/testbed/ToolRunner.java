import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.net.MalformedURLException;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs the main methods of Apache Kafka's command-line tools, many of them in one JVM, because starting
 * a JVM for each costs a second of CPU.
 *
 * Requests arrive on standard input: id, then 0 (stop the run of that id, as Ctrl-C would) or 1 followed by the
 * class name, the number of arguments, the arguments and what the tool shall read on its standard input. For each run one
 * answer leaves on standard output: id, exit status, standard output, standard error. Numbers are four bytes,
 * big-endian; strings are a length and bytes. The process ends with its standard input.
 *
 * Each run has its own thread, its own copy of the tools' static fields and its own standard streams; a thread
 * belongs to the run whose thread created it.
 */
public final class ToolRunner {
    private static final InheritableThreadLocal<Run> CURRENT = new InheritableThreadLocal<>();
    private static final PrintStream REAL_ERR = System.err;

    public static void main(String[] args) throws Exception {
        DataInputStream requests = new DataInputStream(System.in);
        DataOutputStream answers = new DataOutputStream(System.out);
        System.setIn(new RunInput());
        System.setOut(new PrintStream(new RunOutput(true), true));
        System.setErr(new PrintStream(new RunOutput(false), true));
        Exit.setExitProcedure((status, message) -> leave(status));
        Exit.setHaltProcedure((status, message) -> leave(status));
        Exit.setShutdownHookAdder((name, hook) -> {
            Run run = CURRENT.get();
            if (run != null) run.hooks.add(hook);
        });
        try {
            serve(requests, answers);
        } catch (EOFException end) {
            Runtime.getRuntime().halt(0);
        }
    }

    private static void serve(DataInputStream requests, DataOutputStream answers) throws IOException {
        Map<Integer, Run> runs = new ConcurrentHashMap<>();
        while (true) {
            int id = requests.readInt();
            if (requests.readInt() == 0) {
                Run run = runs.get(id);
                if (run != null) new Thread(run::runHooks, "stop-" + id).start();
                continue;
            }
            String tool = string(requests);
            String[] arguments = new String[requests.readInt()];
            for (int i = 0; i < arguments.length; i++) arguments[i] = string(requests);
            Run run = new Run(tool, arguments, bytes(requests));
            runs.put(id, run);
            new Thread(() -> {
                int status = run.execute();
                runs.remove(id);
                answer(answers, id, status, run);
            }, tool + "-" + id).start();
        }
    }

    private static void answer(DataOutputStream answers, int id, int status, Run run) {
        try {
            synchronized (answers) {
                answers.writeInt(id);
                answers.writeInt(status);
                for (ByteArrayOutputStream stream : List.of(run.out, run.err)) {
                    byte[] text = stream.toByteArray();
                    answers.writeInt(text.length);
                    answers.write(text);
                }
                answers.flush();
            }
        } catch (IOException gone) {
            Runtime.getRuntime().halt(1);
        }
    }

    private static byte[] bytes(DataInputStream in) throws IOException {
        return in.readNBytes(in.readInt());
    }

    private static String string(DataInputStream in) throws IOException {
        return new String(bytes(in), StandardCharsets.UTF_8);
    }

    private static void leave(int status) {
        Run run = CURRENT.get();
        if (run != null && run.status == null) run.status = status;
        throw new Left();
    }

    /** Unwinds a tool that called exit. An Error, so that fewer tools catch it. */
    private static final class Left extends Error {
        Left() {
            super("exit", null, false, false);
        }
    }

    /** One tool at work. */
    private static final class Run {
        final String tool;
        final String[] arguments;
        final InputStream in;
        final ByteArrayOutputStream out = new ByteArrayOutputStream();
        final ByteArrayOutputStream err = new ByteArrayOutputStream();
        final List<Runnable> hooks = new java.util.concurrent.CopyOnWriteArrayList<>();
        volatile Integer status;

        Run(String tool, String[] arguments, byte[] in) {
            this.tool = tool;
            this.arguments = arguments;
            this.in = new ByteArrayInputStream(in);
        }

        int execute() {
            CURRENT.set(this);
            try (ToolLoader loader = new ToolLoader()) {
                Thread.currentThread().setContextClassLoader(loader);
                try {
                    loader.loadClass(tool).getMethod("main", String[].class).invoke(null, (Object) arguments);
                } catch (InvocationTargetException thrown) {
                    if (!(thrown.getCause() instanceof Left)) {
                        thrown.getCause().printStackTrace();
                        if (status == null) status = 1;
                    }
                }
                runHooks();
            } catch (Throwable broken) {
                broken.printStackTrace();
                status = 70;
            }
            System.out.flush();
            System.err.flush();
            return status == null ? 0 : status;
        }

        void runHooks() {
            CURRENT.set(this);
            for (Runnable hook : hooks) hook.run();
        }
    }

    /** Loads the tools' own classes anew for each run (they keep counters in static fields) and shares the rest. */
    private static final class ToolLoader extends URLClassLoader {
        ToolLoader() throws MalformedURLException {
            super(toolJars(), ToolRunner.class.getClassLoader());
        }

        private static URL[] toolJars() throws MalformedURLException {
            List<URL> jars = new ArrayList<>();
            for (String entry : System.getProperty("java.class.path").split(File.pathSeparator)) {
                File file = new File(entry);
                if (file.getName().matches("kafka-tools-[0-9].*\\.jar")) jars.add(file.toURI().toURL());
            }
            return jars.toArray(new URL[0]);
        }

        @Override
        protected Class<?> loadClass(String name, boolean resolve) throws ClassNotFoundException {
            if (!name.startsWith("org.apache.kafka.tools.")) return super.loadClass(name, resolve);
            synchronized (getClassLoadingLock(name)) {
                Class<?> loaded = findLoadedClass(name);
                if (loaded != null) return loaded;
                try {
                    return findClass(name);
                } catch (ClassNotFoundException elsewhere) {
                    return super.loadClass(name, resolve);
                }
            }
        }
    }

    private static final class RunInput extends InputStream {
        @Override
        public int read() throws IOException {
            Run run = CURRENT.get();
            return run == null ? -1 : run.in.read();
        }

        @Override
        public int read(byte[] buffer, int offset, int length) throws IOException {
            Run run = CURRENT.get();
            return run == null ? -1 : run.in.read(buffer, offset, length);
        }
    }

    private static final class RunOutput extends OutputStream {
        private final boolean standard;

        RunOutput(boolean standard) {
            this.standard = standard;
        }

        private OutputStream target() {
            Run run = CURRENT.get();
            return run == null ? REAL_ERR : standard ? run.out : run.err;
        }

        @Override
        public void write(int b) throws IOException {
            target().write(b);
        }

        @Override
        public void write(byte[] buffer, int offset, int length) throws IOException {
            target().write(buffer, offset, length);
        }
    }
}
