"""Drives a broker with confluent-kafka: topics, records with keys and headers in every codec, a consumer group that
continues where it stopped, and administration. Prints "passed" when every answer was right.
"""

import sys

from confluent_kafka import Consumer, ConsumerGroupState, KafkaError, KafkaException, OFFSET_BEGINNING, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

LIMIT_S = 30
BOOTSTRAP, PREFIX = sys.argv[1:]
ADMIN = AdminClient({"bootstrap.servers": BOOTSTRAP})


def result(futures):
    """The one result of an admin call on one thing."""
    (future,) = futures.values()
    return future.result(LIMIT_S)


def refused(futures, code):
    """Whether an admin call on one thing failed with a certain error."""
    try:
        result(futures)
    except KafkaException as error:
        assert error.args[0].code() == code, error
    else:
        raise AssertionError(f"expected {code}")


def produce(topic, records, **settings):
    """Sends (key, value, headers) to partition 0 and returns their offsets."""
    offsets = []

    def delivered(error, message):
        assert error is None, error
        offsets.append(message.offset())

    producer = Producer({"bootstrap.servers": BOOTSTRAP, "linger.ms": 20, **settings})
    for key, value, headers in records:
        producer.produce(topic, value, key, 0, delivered, headers=headers)
    assert producer.flush(LIMIT_S) == 0
    return offsets


def read(consumer, count):
    """The next messages of a consumer."""
    messages = consumer.consume(count, LIMIT_S)
    assert len(messages) == count, messages
    for message in messages:
        assert message.error() is None, message.error()
    return messages


def topics():
    result(ADMIN.create_topics([NewTopic(PREFIX, 3, 1)]))
    refused(ADMIN.create_topics([NewTopic(PREFIX, 3, 1)]), KafkaError.TOPIC_ALREADY_EXISTS)
    result(ADMIN.create_partitions([NewPartitions(PREFIX, 4)]))
    assert len(ADMIN.list_topics(PREFIX, LIMIT_S).topics[PREFIX].partitions) == 4


def codecs():
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
        topic = f"{PREFIX}-{codec}"
        result(ADMIN.create_topics([NewTopic(topic, 1, 1)]))
        headers = [("h", b"1"), ("h", None)]
        records = [(f"key {n}".encode(), f"value {n}".encode(), headers) for n in range(100)]
        offsets = produce(topic, records, **{"compression.type": codec, "enable.idempotence": True})
        assert offsets == list(range(100)), offsets
        consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": "unused"})
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        found = [(message.key(), message.value(), message.headers()) for message in read(consumer, 100)]
        assert found == records, codec
        consumer.close()


def group():
    topic = group_id = f"{PREFIX}-group"
    result(ADMIN.create_topics([NewTopic(topic, 1, 1)]))
    for value in [b"first", b"second"]:
        produce(topic, [(None, value, [])])
        member = Consumer(
            {
                "bootstrap.servers": BOOTSTRAP,
                "group.id": group_id,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
            }
        )
        member.subscribe([topic])
        (message,) = read(member, 1)
        assert message.value() == value, message.value()
        member.commit(message, asynchronous=False)
        (committed,) = member.committed([TopicPartition(topic, 0)], LIMIT_S)
        assert committed.offset == message.offset() + 1, committed
        member.close()
    described = result(ADMIN.describe_consumer_groups([group_id]))
    assert described.state == ConsumerGroupState.EMPTY, described.state
    listed = ADMIN.list_consumer_groups().result(LIMIT_S).valid
    assert group_id in [known.group_id for known in listed], listed
    result(ADMIN.delete_consumer_groups([group_id]))
    refused(ADMIN.delete_consumer_groups([group_id]), KafkaError.GROUP_ID_NOT_FOUND)


def configs():
    entry = ConfigEntry("retention.ms", "12345", incremental_operation=AlterConfigOpType.SET)
    result(ADMIN.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, PREFIX, incremental_configs=[entry])]))
    described = result(ADMIN.describe_configs([ConfigResource(ResourceType.TOPIC, PREFIX)]))
    assert described["retention.ms"].value == "12345", described["retention.ms"]
    cluster = ADMIN.describe_cluster().result(LIMIT_S)
    assert [node.id for node in cluster.nodes] == [1], cluster.nodes


def deletions():
    partition = TopicPartition(f"{PREFIX}-none", 0, 40)
    assert result(ADMIN.delete_records([partition])).low_watermark == 40
    earliest = result(ADMIN.list_offsets({partition: OffsetSpec.earliest()}))
    assert earliest.offset == 40, earliest
    result(ADMIN.delete_topics([partition.topic]))
    refused(ADMIN.delete_topics([partition.topic]), KafkaError.UNKNOWN_TOPIC_OR_PART)


topics()
codecs()
group()
configs()
deletions()
print("passed")
