import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

/**
 * Apache Kafka's Java clients behind one JSON request a line: the same source against 3.9 and 4.1.
 * Usage: Adapter BOOTSTRAP. What each request means is told in harness/adapter.py.
 */
public final class Adapter {
    private static final long DEADLINE_S = 60;
    private static final ObjectMapper JSON = new ObjectMapper();

    private final String bootstrap;
    private Traffic traffic;

    private Adapter(String bootstrap) {
        this.bootstrap = bootstrap;
    }

    public static void main(String[] arguments) throws Exception {
        PrintStream out = System.out;
        System.setOut(System.err); // standard output carries answers only
        Adapter adapter = new Adapter(arguments[0]);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            out.println(JSON.writeValueAsString(adapter.answer(JSON.readTree(line))));
            out.flush();
        }
        System.exit(0);
    }

    private ObjectNode answer(JsonNode request) {
        try {
            return switch (request.get("op").asText()) {
                case "version" -> JSON.createObjectNode().put("version", AppInfoParser.getVersion());
                case "create" -> create(request);
                case "delete" -> delete(request);
                case "produce" -> produce(request);
                case "consume" -> consume(request);
                case "produce_file" -> produceFile(request);
                case "traffic_start" -> {
                    traffic = new Traffic(bootstrap, partition(request));
                    yield JSON.createObjectNode();
                }
                case "traffic_stop" -> traffic.stop();
                default -> throw new IllegalArgumentException("unknown op " + request.get("op"));
            };
        } catch (Throwable error) {
            Throwable cause = error instanceof ExecutionException ? error.getCause() : error;
            error.printStackTrace();
            return JSON.createObjectNode().put("error", (int) Errors.forException(cause).code()).put("message", cause.toString());
        }
    }

    private ObjectNode create(JsonNode request) throws Exception {
        NewTopic topic = new NewTopic(request.get("topic").asText(), Optional.of(request.get("partitions").asInt()), Optional.empty());
        Map<String, String> config = new HashMap<>();
        request.get("config").fields().forEachRemaining(entry -> config.put(entry.getKey(), entry.getValue().asText()));
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            admin.createTopics(List.of(topic.configs(config))).all().get(DEADLINE_S, TimeUnit.SECONDS);
        }
        return JSON.createObjectNode();
    }

    private ObjectNode delete(JsonNode request) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            admin.deleteTopics(List.of(request.get("topic").asText())).all().get(DEADLINE_S, TimeUnit.SECONDS);
        }
        return JSON.createObjectNode();
    }

    private ObjectNode produce(JsonNode request) throws Exception {
        TopicPartition partition = partition(request);
        ObjectNode answer = JSON.createObjectNode();
        ArrayNode offsets = answer.putArray("offsets");
        try (KafkaProducer<byte[], byte[]> producer = producer(request, request.get("max_bytes").asInt())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (JsonNode node : request.get("records")) {
                Long timestamp = node.get("t").isNull() ? null : node.get("t").asLong();
                ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(
                    partition.topic(), partition.partition(), timestamp, decode(node.get("k")), decode(node.get("v")));
                for (JsonNode header : node.get("h")) {
                    record.headers().add(header.get(0).asText(), decode(header.get(1)));
                }
                sent.add(producer.send(record));
            }
            for (Future<RecordMetadata> future : sent) {
                offsets.add(future.get(DEADLINE_S, TimeUnit.SECONDS).offset());
            }
        }
        return answer;
    }

    private ObjectNode consume(JsonNode request) {
        TopicPartition partition = partition(request);
        int count = request.get("count").asInt();
        ObjectNode answer = JSON.createObjectNode();
        ArrayNode records = answer.putArray("records");
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap, "none", Map.of())) {
            consumer.assign(List.of(partition));
            long offset = request.get("timestamp").isNull()
                ? request.get("offset").asLong()
                : consumer.offsetsForTimes(Map.of(partition, request.get("timestamp").asLong())).get(partition).offset();
            consumer.seek(partition, offset);
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(DEADLINE_S);
            while (records.size() < count) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(500))) {
                    if (records.size() < count) {
                        records.add(toJson(record));
                    }
                }
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException(records.size() + " of " + count + " records within " + DEADLINE_S + " s");
                }
            }
        }
        return answer;
    }

    private ObjectNode produceFile(JsonNode request) throws Exception {
        int count = 0;
        try (KafkaProducer<byte[], byte[]> producer = producer(request, 1_000_000)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (String line : Files.readAllLines(Path.of(request.get("path").asText()))) {
                String[] parts = line.split("\t", 3);
                sent.add(producer.send(new ProducerRecord<>(request.get("topic").asText(), null, Long.parseLong(parts[1]),
                    parts[0].getBytes(StandardCharsets.UTF_8), parts[2].getBytes(StandardCharsets.UTF_8))));
            }
            for (Future<RecordMetadata> future : sent) {
                future.get(DEADLINE_S, TimeUnit.SECONDS);
                count++;
            }
        }
        return JSON.createObjectNode().put("count", count);
    }

    private KafkaProducer<byte[], byte[]> producer(JsonNode request, int maxBytes) {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        config.put("acks", "all");
        config.put("linger.ms", "20");
        config.put("compression.type", request.get("codec").asText());
        config.put("max.request.size", maxBytes);
        config.put("buffer.memory", Math.max(4L * maxBytes, 32L << 20));
        return new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(String bootstrap, String reset, Map<String, Object> more) {
        Map<String, Object> config = new HashMap<>(more);
        config.put("bootstrap.servers", bootstrap);
        config.put("auto.offset.reset", reset);
        config.put("enable.auto.commit", false);
        return new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static TopicPartition partition(JsonNode request) {
        return new TopicPartition(request.get("topic").asText(), request.get("partition").asInt());
    }

    private static ObjectNode toJson(ConsumerRecord<byte[], byte[]> record) {
        ObjectNode node = JSON.createObjectNode();
        node.put("o", record.offset()).put("t", record.timestamp());
        node.put("k", encode(record.key())).put("v", encode(record.value()));
        ArrayNode headers = node.putArray("h");
        for (Header header : record.headers()) {
            headers.addArray().add(header.key()).add(encode(header.value()));
        }
        return node;
    }

    private static String encode(byte[] data) {
        return data == null ? null : Base64.getEncoder().encodeToString(data);
    }

    private static byte[] decode(JsonNode node) {
        return node.isNull() ? null : Base64.getDecoder().decode(node.asText());
    }

    /** A producer and a consumer that go on whatever happens to the topic. */
    private static final class Traffic {
        /** How often the clients refresh metadata by themselves. */
        private static final int REFRESH_MS = 2000;

        private final ObjectNode seen = JSON.createObjectNode();
        private final ArrayNode produced = seen.putArray("produced");
        private final ArrayNode consumed = seen.putArray("consumed");
        private final ArrayNode errors = seen.putArray("errors");
        private final List<Thread> threads;
        private volatile boolean stopping;

        Traffic(String bootstrap, TopicPartition partition) {
            threads = List.of(new Thread(() -> sendOn(bootstrap, partition)), new Thread(() -> readOn(bootstrap, partition)));
            threads.forEach(Thread::start);
        }

        ObjectNode stop() throws InterruptedException {
            stopping = true;
            for (Thread thread : threads) {
                thread.join(30_000);
            }
            synchronized (seen) {
                return seen;
            }
        }

        private void sendOn(String bootstrap, TopicPartition partition) {
            Properties config = new Properties();
            config.put("bootstrap.servers", bootstrap);
            config.put("acks", "all");
            config.put("metadata.max.age.ms", REFRESH_MS);
            config.put("max.block.ms", 1000);
            config.put("request.timeout.ms", 4000);
            config.put("delivery.timeout.ms", 5000);
            config.put("linger.ms", 0);
            try (KafkaProducer<byte[], byte[]> producer =
                     new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
                for (int number = 0; !stopping; number++) {
                    byte[] value = Integer.toString(number).getBytes(StandardCharsets.UTF_8);
                    producer.send(new ProducerRecord<>(partition.topic(), partition.partition(), null, value), (metadata, error) -> {
                        if (error == null) {
                            synchronized (seen) {
                                produced.addArray().add(System.currentTimeMillis()).add(metadata.offset());
                            }
                        } else {
                            note(error);
                        }
                    });
                    pause(10);
                }
            }
        }

        private void readOn(String bootstrap, TopicPartition partition) {
            try (KafkaConsumer<byte[], byte[]> consumer =
                     consumer(bootstrap, "earliest", Map.of("metadata.max.age.ms", REFRESH_MS))) {
                consumer.assign(List.of(partition));
                consumer.seek(partition, 0);
                while (!stopping) {
                    try {
                        for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                            synchronized (seen) {
                                consumed.addArray().add(System.currentTimeMillis()).add(record.offset())
                                    .add(new String(record.value(), StandardCharsets.UTF_8));
                            }
                        }
                    } catch (RuntimeException error) {
                        note(error);
                        pause(10);
                    }
                }
            }
        }

        private void note(Exception error) {
            synchronized (seen) {
                errors.add(error.toString());
            }
        }

        private static void pause(long millis) {
            try {
                Thread.sleep(millis);
            } catch (InterruptedException error) {
                throw new IllegalStateException(error);
            }
        }
    }
}
