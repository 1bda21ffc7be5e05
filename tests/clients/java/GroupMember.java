import java.io.PrintStream;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Members of consumer groups in one process: the same source against 3.9 and 4.1. What it does and tells is told in groups/member.py.
 * Usage: GroupMember CLIENT BOOTSTRAP TOPIC GROUP:ASSIGNOR...
 */
public final class GroupMember implements Runnable {
    private static final Map<String, String> ASSIGNORS = Map.of(
        "range", "RangeAssignor", "roundrobin", "RoundRobinAssignor", "sticky", "StickyAssignor",
        "cooperative-sticky", "CooperativeStickyAssignor");
    private static final int SESSION_MS = 6000;
    private static final int BATCH = 250;
    private static final int WORK_MS = 100;

    private static final PrintStream OUT = System.out;
    private static final AtomicBoolean STOP = new AtomicBoolean();

    private final String client;
    private final String bootstrap;
    private final String topic;
    private final String group;
    private final String assignor;
    private final Set<TopicPartition> uncommitted = new HashSet<>();

    private GroupMember(String client, String bootstrap, String topic, String membership) {
        this.client = client;
        this.bootstrap = bootstrap;
        this.topic = topic;
        this.group = membership.split(":")[0];
        this.assignor = membership.split(":")[1];
    }

    public static void main(String[] arguments) throws Exception {
        System.setOut(System.err); // standard output carries what is told only
        List<Thread> threads = new ArrayList<>();
        for (int i = 3; i < arguments.length; i++) {
            threads.add(new Thread(new GroupMember(arguments[0], arguments[1], arguments[2], arguments[i])));
        }
        for (Thread thread : threads) {
            thread.start();
        }
        while (System.in.read() >= 0) {
            // What is written does not matter, only that it ends.
        }
        STOP.set(true);
        for (Thread thread : threads) {
            thread.join();
        }
        System.exit(0);
    }

    @Override
    public void run() {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        config.put("group.id", group);
        config.put("client.id", client);
        config.put("auto.offset.reset", "earliest");
        config.put("enable.auto.commit", "false");
        config.put("max.poll.records", Integer.toString(BATCH));
        config.put("reconnect.backoff.max.ms", "500");
        if (assignor.equals("consumer")) {
            config.put("group.protocol", "consumer");
        } else {
            config.put("session.timeout.ms", Integer.toString(SESSION_MS));
            config.put("heartbeat.interval.ms", "500");
            config.put("partition.assignment.strategy", "org.apache.kafka.clients.consumer." + ASSIGNORS.get(assignor));
        }
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            if (assignor.equals("consumer")) {
                consumer.subscribe(List.of(topic), new WithinPoll());
            } else {
                consumer.subscribe(List.of(topic));
            }
            while (!STOP.get()) {
                ConsumerRecords<byte[], byte[]> polled = consumer.poll(Duration.ofMillis(100));
                for (TopicPartition partition : polled.partitions()) {
                    process(consumer, partition, polled.records(partition));
                }
                commitAgain(consumer);
            }
        } catch (Exception error) {
            error.printStackTrace();
            System.exit(1);
        }
    }

    private void process(KafkaConsumer<byte[], byte[]> consumer, TopicPartition partition, List<ConsumerRecord<byte[], byte[]>> records) throws Exception {
        MessageDigest digest = MessageDigest.getInstance("SHA-1");
        records.forEach(record -> digest.update(record.value()));
        long first = records.get(0).offset();
        long next = records.get(records.size() - 1).offset() + 1;
        if (next - first != records.size()) {
            throw new IllegalStateException("a partition's records come without a gap");
        }
        tell("processed", partition.partition(), first, next, HexFormat.of().formatHex(digest.digest()));
        Thread.sleep(WORK_MS);
        try {
            consumer.commitSync(Map.of(partition, new OffsetAndMetadata(next)));
            uncommitted.remove(partition);
            tell("committed", partition.partition(), first, next, "");
        } catch (KafkaException error) {
            uncommitted.add(partition);
            tell("refused", partition.partition(), first, next, error.getClass().getSimpleName());
        }
    }

    private void commitAgain(KafkaConsumer<byte[], byte[]> consumer) {
        uncommitted.retainAll(consumer.assignment());
        for (TopicPartition partition : List.copyOf(uncommitted)) {
            try {
                consumer.commitSync(Map.of(partition, new OffsetAndMetadata(consumer.position(partition))));
                uncommitted.remove(partition);
            } catch (KafkaException error) {
                return; // the next time
            }
        }
    }

    /** With a listener partitions go within poll, and not while records of theirs are being processed: their commit would be taken. */
    private static final class WithinPoll implements ConsumerRebalanceListener {
        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) { }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) { }
    }

    private void tell(String what, int partition, long first, long next, String detail) {
        String line = String.format("[%d, \"%s\", \"%s\", %d, %d, %d, \"%s\"]", System.currentTimeMillis(), group, what, partition, first, next, detail);
        synchronized (OUT) {
            OUT.println(line);
            OUT.flush();
        }
    }
}
