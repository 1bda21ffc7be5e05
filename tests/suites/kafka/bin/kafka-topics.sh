#!/bin/bash
# A few of librdkafka's tests call Apache Kafka's own tool; its jars are those that the client suites use.
cache=$(cd "$(dirname "$(readlink -f "$0")")/../../../.cache" && pwd)
exec java -Xmx128m -XX:TieredStopAtLevel=1 -cp "$cache/kafka39/libs/*" org.apache.kafka.tools.TopicCommand "$@"
