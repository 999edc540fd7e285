// Writes what Apache Kafka's own classes make of every message at every version.
//
//   java -cp "$KAFKA_LIBS/*" tools/golden-messages/GoldenMessages.java protocol/tests/data/golden_messages.txt.gz
//
// KAFKA_LIBS is a folder with the jars of Apache Kafka 4.3.1 (a distribution's libs/). The output is the same at every run.
// The messages are found by looking for generated classes in the jars, not in any list of ours.
//
// Lines, words separated by one space; bytes are hexadecimal, "-" when there are none, "!" when Kafka refuses to write:
//   message NAME FIRST LAST    a message and the versions of its class; the lines up to the next one are about it
//   default VERSION BYTES      a new object
//   frame VERSION BYTES        an object with random values, written, read and written again
//   rewrite FROM TO CRC|!      the last frame of FROM read and written in version TO: CRC-32 of the bytes
// and at the end, about strings of bytes as Kafka's messages read them:
//   text BYTES BYTES           what is read from the first is written as the second
//   texts LENGTH CRC           CRC-32 of the results for all strings of LENGTH of the bytes that TEXT_BYTES lists, in order

import java.io.ByteArrayOutputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;
import java.util.zip.CRC32;
import java.util.zip.GZIPOutputStream;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.MessageUtil;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.CompactArrayOf;
import org.apache.kafka.common.protocol.types.Field;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.protocol.types.Type;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.utils.ByteUtils;

public class GoldenMessages {
    private static final String[] PACKAGES = {
        "org/apache/kafka/common/message/",
        "org/apache/kafka/common/metadata/",
        "org/apache/kafka/coordinator/group/generated/",
        "org/apache/kafka/coordinator/transaction/generated/",
        "org/apache/kafka/coordinator/share/generated/",
        "org/apache/kafka/raft/generated/",
    };
    /** Everything set; as much null, empty or left out as may be; four of any kind. */
    private enum Fill { FULL, SPARSE, MIXED_1, MIXED_2, MIXED_3, MIXED_4 }
    private static final String[] WORDS = {
        "", "a", "topic", "__consumer_offsets", "größe", "日本語", "\uD83D\uDE80", "\u0000", "10.0.0.1", "consumer-1",
    };
    private static final int[] TEXT_BYTES = {
        0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec,
        0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf8, 0xfe, 0xff,
    };

    public static void main(String[] args) throws Exception {
        ByteArrayOutputStream text = new ByteArrayOutputStream();
        try (PrintStream out = new PrintStream(text, false, StandardCharsets.US_ASCII)) {
            for (Map.Entry<String, Class<? extends Message>> found : messages().entrySet()) {
                message(out, found.getKey(), found.getValue());
            }
            texts(out);
        }
        try (OutputStream file = new GZIPOutputStream(Files.newOutputStream(Path.of(args[0]))) {{
            def.setLevel(9);
        }}) {
            text.writeTo(file);
        }
    }

    /** The generated classes by the names of their schemas. */
    private static Map<String, Class<? extends Message>> messages() throws Exception {
        Map<String, Class<? extends Message>> found = new TreeMap<>();
        for (String path : System.getProperty("java.class.path").split(":")) {
            if (!path.endsWith(".jar")) {
                continue;
            }
            try (JarFile jar = new JarFile(path)) {
                for (JarEntry entry : (Iterable<JarEntry>) jar.stream()::iterator) {
                    Class<?> type = generated(entry.getName());
                    if (type != null) {
                        String name = type.getSimpleName().replaceFirst("(Request|Response|Header)Data$", "$1");
                        found.put(name, type.asSubclass(Message.class));
                    }
                }
            }
        }
        return found;
    }

    private static Class<?> generated(String entry) throws Exception {
        for (String folder : PACKAGES) {
            if (entry.matches(folder + "\\w+\\.class")) {
                Class<?> type = Class.forName(entry.replace('/', '.').replace(".class", ""));
                return Message.class.isAssignableFrom(type) && !type.isInterface() ? type : null;
            }
        }
        return null;
    }

    private static void message(PrintStream out, String name, Class<? extends Message> type) throws Exception {
        Message fresh = type.getConstructor().newInstance();
        short first = fresh.lowestSupportedVersion();
        short last = fresh.highestSupportedVersion();
        out.println("message " + name + " " + first + " " + last);
        Schema[] schemas = (Schema[]) type.getField("SCHEMAS").get(null);
        Map<Short, byte[]> lastFrames = new TreeMap<>();
        for (short version = first; version <= last; version++) {
            out.println("default " + version + " " + hex(written(fresh, version)));
            Set<String> printed = new HashSet<>();
            // The full frame comes last: it is the one that the rewrites start from.
            for (int i = Fill.values().length - 1; i >= 0; i--) {
                Random random = new Random(31L * (31L * name.hashCode() + version) + i);
                byte[] raw = new Filler(random, Fill.values()[i]).bytes(schemas[version]);
                byte[] canonical = written(read(type, raw, version), version);
                byte[] again = written(read(type, canonical, version), version);
                if (!Arrays.equals(canonical, again)) {
                    throw new IllegalStateException(name + " " + version + ": not canonical");
                }
                if (printed.add(hex(canonical)) || Fill.values()[i] == Fill.FULL) {
                    out.println("frame " + version + " " + hex(canonical));
                }
                lastFrames.put(version, canonical);
            }
        }
        for (short from = first; from <= last; from++) {
            Message full = read(type, lastFrames.get(from), from);
            for (short to = first; to <= last; to++) {
                if (from != to) {
                    byte[] bytes = written(full, to);
                    out.println("rewrite " + from + " " + to + " " + (bytes == null ? "!" : crc(bytes)));
                }
            }
        }
    }

    private static Message read(Class<? extends Message> type, byte[] bytes, short version) throws Exception {
        ByteBuffer buffer = ByteBuffer.wrap(bytes);
        Message message = type.getConstructor().newInstance();
        message.read(new ByteBufferAccessor(buffer), version);
        if (buffer.hasRemaining()) {
            throw new IllegalStateException(type + " " + version + ": " + buffer.remaining() + " bytes left");
        }
        return message;
    }

    /** The message's bytes, or null when its class does not write it in this version. */
    private static byte[] written(Message message, short version) {
        ByteBuffer buffer;
        try {
            buffer = MessageUtil.toByteBufferAccessor(message, version).buffer();
        } catch (RuntimeException refused) {
            return null;
        }
        byte[] bytes = new byte[buffer.remaining()];
        buffer.get(bytes);
        return bytes;
    }

    /** Writes made-up values of a schema. */
    private record Filler(Random random, Fill fill) {
        byte[] bytes(Schema schema) {
            ByteBuffer buffer = ByteBuffer.allocate(1 << 20);
            put(buffer, schema, 0, false);
            return Arrays.copyOf(buffer.array(), buffer.position());
        }

        private boolean chance(int percent) {
            return switch (fill) {
                case FULL -> true;
                case SPARSE -> false;
                default -> random.nextInt(100) < percent;
            };
        }

        private void put(ByteBuffer buffer, Type type, int depth, boolean tagged) {
            boolean isNull = type.isNullable() && !chance(75);
            if (type instanceof TaggedFields fields) {
                putTagged(buffer, fields, depth);
            } else if (type instanceof Schema schema) {
                if (type.isNullable()) {
                    // The classes mark a null struct differently in a tagged field, which the schemas do not know.
                    buffer.put((byte) (isNull ? (tagged ? 0 : -1) : 1));
                }
                for (BoundField field : isNull ? new BoundField[0] : schema.fields()) {
                    put(buffer, field.def.type, depth + 1, false);
                }
            } else if (isNull) {
                type.write(buffer, null);
            } else if (type.isArray()) {
                putArray(buffer, type, depth);
            } else {
                type.write(buffer, scalar(type));
            }
        }

        private void putTagged(ByteBuffer buffer, TaggedFields fields, int depth) {
            TreeMap<Integer, Field> set = new TreeMap<>(fields.fields());
            set.values().removeIf(field -> !chance(60) && !(fill == Fill.SPARSE && field.type.isNullable()));
            ByteUtils.writeUnsignedVarint(set.size(), buffer);
            for (Map.Entry<Integer, Field> field : set.entrySet()) {
                ByteBuffer value = ByteBuffer.allocate(1 << 16);
                put(value, field.getValue().type, depth + 1, true);
                ByteUtils.writeUnsignedVarint(field.getKey(), buffer);
                ByteUtils.writeUnsignedVarint(value.position(), buffer);
                buffer.put(value.flip());
            }
        }

        private void putArray(ByteBuffer buffer, Type type, int depth) {
            Type element = type.arrayElementType().orElseThrow();
            int length = switch (fill) {
                case FULL -> depth < 3 ? 2 : 1;
                case SPARSE -> 0;
                default -> random.nextInt(depth < 3 ? 4 : 3);
            };
            // Now and then more elements than a varint of one byte can count.
            boolean many = !(element instanceof Schema) && fill == Fill.MIXED_1 && random.nextInt(12) == 0;
            if (many) {
                length = 130;
            }
            if (type instanceof CompactArrayOf) {
                ByteUtils.writeUnsignedVarint(length + 1, buffer);
            } else {
                buffer.putInt(length);
            }
            for (int i = 0; i < length; i++) {
                if (many && element.toString().endsWith("STRING")) {
                    element.write(buffer, "t");
                } else {
                    put(buffer, element, depth + 1, false);
                }
            }
        }

        private Object scalar(Type type) {
            String name = type.toString().replace("COMPACT_", "").replace("NULLABLE_", "");
            return switch (name) {
                case "BOOLEAN" -> random.nextBoolean();
                case "INT8" -> (byte) bits(8);
                case "INT16" -> (short) bits(16);
                case "UINT16" -> (int) bits(16) & 0xffff;
                case "INT32" -> (int) bits(32);
                case "UINT32" -> bits(32) & 0xffffffffL;
                case "INT64" -> bits(64);
                case "FLOAT64" -> random.nextGaussian() * 1e9;
                case "UUID" -> new Uuid(random.nextLong(), bits(64));
                case "STRING" -> text();
                case "BYTES" -> ByteBuffer.wrap(blob());
                case "RECORDS" -> MemoryRecords.readableRecords(ByteBuffer.wrap(blob()));
                default -> throw new IllegalStateException("no values for " + name);
            };
        }

        /** A signed number of at most so many bits: its ends, small numbers, or any. */
        private long bits(int width) {
            long any = random.nextLong() >> (64 - width);
            return switch (random.nextInt(8)) {
                case 0 -> Long.MIN_VALUE >> (64 - width);
                case 1 -> Long.MAX_VALUE >> (64 - width);
                case 2 -> -1;
                case 3, 4 -> random.nextInt(100);
                default -> any;
            };
        }

        private String text() {
            if (fill == Fill.SPARSE) {
                return "";
            }
            // Lengths on both sides of a varint's second byte.
            return random.nextInt(16) == 0
                ? "x".repeat(124 + random.nextInt(8))
                : WORDS[random.nextInt(WORDS.length)];
        }

        private byte[] blob() {
            byte[] bytes = new byte[fill == Fill.SPARSE ? 0 : random.nextInt(20)];
            random.nextBytes(bytes);
            return bytes;
        }
    }

    private static void texts(PrintStream out) {
        byte[][] samples = {
            {}, hexBytes("61ff62"), hexBytes("c080"), hexBytes("eda080"), hexBytes("eda0"), hexBytes("edbfbf41"),
            hexBytes("f0908041"), hexBytes("f08080"), hexBytes("f4908080"), hexBytes("f09f9a80"), hexBytes("e282"),
            hexBytes("e28241"), hexBytes("fe80bf"), hexBytes("efbfbd"), hexBytes("eda080edb080"), hexBytes("f8888080"),
        };
        for (byte[] sample : samples) {
            out.println("text " + hex(sample) + " " + hex(reread(sample)));
        }
        for (int length = 1; length <= 4; length++) {
            CRC32 crc = new CRC32();
            allTexts(new byte[length], 0, crc);
            out.println("texts " + length + " " + String.format("%08x", crc.getValue()));
        }
    }

    private static void allTexts(byte[] text, int at, CRC32 crc) {
        if (at == text.length) {
            crc.update(reread(text));
            return;
        }
        for (int value : TEXT_BYTES) {
            text[at] = (byte) value;
            allTexts(text, at + 1, crc);
        }
    }

    private static byte[] reread(byte[] bytes) {
        String text = new ByteBufferAccessor(ByteBuffer.wrap(bytes)).readString(bytes.length);
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static byte[] hexBytes(String hex) {
        return HexFormat.of().parseHex(hex);
    }

    private static String hex(byte[] bytes) {
        if (bytes == null) {
            return "!";
        }
        return bytes.length == 0 ? "-" : HexFormat.of().formatHex(bytes);
    }

    private static String crc(byte[] bytes) {
        CRC32 crc = new CRC32();
        crc.update(bytes);
        return String.format("%08x", crc.getValue());
    }
}
