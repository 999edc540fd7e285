package klamm.suites;

import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.ByteBuffer;

import org.apache.kafka.common.requests.AbstractRequest;
import org.apache.kafka.common.requests.AbstractResponse;
import org.apache.kafka.common.requests.RequestHeader;

/** One question to one node, over a connection of its own: an admin client would choose the node that answers by itself. */
final class Wire {
    private static final int LIMIT_MS = 5_000;

    private Wire() {
    }

    static AbstractResponse ask(int port, AbstractRequest request) throws IOException {
        RequestHeader header = new RequestHeader(request.apiKey(), request.version(), "kafka-suites", 1);
        byte[] frame = bytes(request.serializeWithHeader(header));
        try (Socket socket = new Socket()) {
            socket.connect(new InetSocketAddress("localhost", port), LIMIT_MS);
            socket.setSoTimeout(LIMIT_MS);
            DataOutputStream out = new DataOutputStream(socket.getOutputStream());
            out.writeInt(frame.length);
            out.write(frame);
            out.flush();
            DataInputStream in = new DataInputStream(socket.getInputStream());
            byte[] answer = in.readNBytes(in.readInt());
            return AbstractResponse.parseResponse(ByteBuffer.wrap(answer), header);
        }
    }

    private static byte[] bytes(ByteBuffer buffer) {
        byte[] bytes = new byte[buffer.remaining()];
        buffer.get(bytes);
        return bytes;
    }
}
