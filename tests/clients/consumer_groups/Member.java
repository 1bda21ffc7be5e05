import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** What member.py is, by the Java client of 4.1: the same arguments, and the same lines on standard output. */
public final class Member {
    private static final long WORK_MS = 2;

    public static void main(String[] arguments) throws Exception {
        AtomicBoolean stop = new AtomicBoolean();
        Thread watcher = new Thread(() -> {
            try {
                while (System.in.read() >= 0) { }
            } catch (java.io.IOException closed) {
                // The end as well.
            }
            stop.set(true);
        });
        watcher.setDaemon(true);
        watcher.start();
        Properties config = new Properties();
        config.putAll(Map.of("bootstrap.servers", arguments[0], "group.id", arguments[1], "group.protocol", arguments[3],
            "auto.offset.reset", "earliest", "enable.auto.commit", "false", "max.poll.records", "1",
            "metadata.max.age.ms", "1000"));
        if (arguments[3].equals("classic")) {
            config.putAll(Map.of("session.timeout.ms", "6000", "heartbeat.interval.ms", "500",
                "partition.assignment.strategy", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"));
        }
        if (arguments.length > 4) {
            config.put("group.instance.id", arguments[4]);
        }
        try (var consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            if (arguments[2].startsWith("^")) {
                consumer.subscribe(new SubscriptionPattern(arguments[2]), new Within());
            } else {
                consumer.subscribe(List.of(arguments[2]), new Within());
            }
            while (!stop.get()) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                    Thread.sleep(WORK_MS);
                    tell("processed", record.partition(), record.offset());
                    try {
                        var partition = new TopicPartition(record.topic(), record.partition());
                        consumer.commitSync(Map.of(partition, new OffsetAndMetadata(record.offset() + 1)));
                        tell("committed", record.partition(), record.offset() + 1);
                    } catch (KafkaException error) {
                        // Another member has the partition now, or the broker is away: somebody processes the record again.
                        System.err.println(System.nanoTime() + " refused " + record.partition() + " " + (record.offset() + 1) + " " + error);
                    }
                }
            }
        }
    }

    /** With a listener partitions go within poll, and not while a record of theirs is being processed: its commit would be taken. */
    private static final class Within implements ConsumerRebalanceListener {
        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            System.err.println(System.nanoTime() + " revoked " + partitions);
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            System.err.println(System.nanoTime() + " assigned " + partitions);
        }

        @Override
        public void onPartitionsLost(Collection<TopicPartition> partitions) {
            System.err.println(System.nanoTime() + " lost " + partitions);
        }
    }

    private static void tell(String what, int partition, long offset) {
        System.out.println("[" + System.nanoTime() + ", \"" + what + "\", " + partition + ", " + offset + "]");
        System.out.flush();
    }
}
