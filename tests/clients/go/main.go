// Command smoke drives a broker with franz-go: topics, records with keys and headers in every codec, a consumer
// group that continues where it stopped, and administration. It ends with status 0 and the word "passed" when every answer was right.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const limit = 60 * time.Second

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	smoke := smoke{ctx: ctx, seed: os.Args[1], prefix: os.Args[2]}
	smoke.topics()
	smoke.codecs()
	smoke.group()
	smoke.configs()
	smoke.deletions()
	fmt.Println("passed")
}

type smoke struct {
	ctx          context.Context
	seed, prefix string
}

func (s smoke) client(options ...kgo.Opt) *kgo.Client {
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(s.seed))...)
	must(err)
	return client
}

func (s smoke) admin() *kadm.Client { return kadm.NewClient(s.client()) }

func (s smoke) topics() {
	admin := s.admin()
	defer admin.Close()
	_, err := admin.CreateTopic(s.ctx, 3, 1, nil, s.prefix)
	must(err)
	_, err = admin.CreateTopic(s.ctx, 3, 1, nil, s.prefix)
	expect(err, kerr.TopicAlreadyExists)
	updated, err := admin.CreatePartitions(s.ctx, 1, s.prefix)
	must(err)
	must(updated.Error())
	listed, err := admin.ListTopics(s.ctx, s.prefix)
	must(err)
	equal(len(listed[s.prefix].Partitions), 4)
}

func (s smoke) codecs() {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	for name, codec := range codecs {
		producer := s.client(kgo.ProducerBatchCompression(codec), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		topic := s.prefix + "-" + name
		admin := kadm.NewClient(producer)
		_, err := admin.CreateTopic(s.ctx, 1, 1, nil, topic)
		must(err)
		var records []*kgo.Record
		for i := range 100 {
			records = append(records, &kgo.Record{
				Topic: topic, Key: fmt.Append(nil, "key ", i), Value: fmt.Append(nil, "value ", i),
				Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("1")}, {Key: "h", Value: nil}},
			})
		}
		must(producer.ProduceSync(s.ctx, records...).FirstErr())
		producer.Close()

		consumer := s.client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		for i, record := range s.read(consumer, 100) {
			equal(record.Offset, int64(i))
			equal(string(record.Key), fmt.Sprint("key ", i))
			equal(string(record.Value), fmt.Sprint("value ", i))
			equal(len(record.Headers), 2)
			equal(record.Headers[0].Key+string(record.Headers[0].Value), "h1")
		}
		consumer.Close()
	}
}

func (s smoke) group() {
	topic, group := s.prefix+"-group", s.prefix+"-group"
	producer := s.client(kgo.DefaultProduceTopic(topic), kgo.AllowAutoTopicCreation())
	defer producer.Close()
	read := func(value string) {
		must(producer.ProduceSync(s.ctx, kgo.StringRecord(value)).FirstErr())
		member := s.client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		records := s.read(member, 1)
		equal(len(records), 1)
		equal(string(records[0].Value), value)
		must(member.CommitRecords(s.ctx, records...))
		must(member.LeaveGroupContext(s.ctx))
		member.Close()
	}
	read("first")
	read("second")

	admin := s.admin()
	defer admin.Close()
	described, err := admin.DescribeGroups(s.ctx, group)
	must(err)
	equal(described[group].State, "Empty")
	offsets, err := admin.FetchOffsets(s.ctx, group)
	must(err)
	offset, _ := offsets.Lookup(topic, 0)
	equal(offset.At, int64(2))
	lags, err := admin.Lag(s.ctx, group)
	must(err)
	equal(lags[group].Lag.Total(), int64(0))
	deleted, err := admin.DeleteGroups(s.ctx, group)
	must(err)
	must(deleted[group].Err)
}

func (s smoke) configs() {
	admin := s.admin()
	defer admin.Close()
	value := "12345"
	_, err := admin.AlterTopicConfigs(s.ctx, []kadm.AlterConfig{{Name: "retention.ms", Value: &value}}, s.prefix)
	must(err)
	described, err := admin.DescribeTopicConfigs(s.ctx, s.prefix)
	must(err)
	for _, config := range described[0].Configs {
		if config.Key == "retention.ms" {
			equal(*config.Value, value)
			return
		}
	}
	fail("retention.ms is not described")
}

func (s smoke) deletions() {
	admin := s.admin()
	defer admin.Close()
	topic := s.prefix + "-none"
	var offsets kadm.Offsets
	offsets.AddOffset(topic, 0, 40, -1)
	deleted, err := admin.DeleteRecords(s.ctx, offsets)
	must(err)
	must(deleted.Error())
	starts, err := admin.ListStartOffsets(s.ctx, topic)
	must(err)
	start, _ := starts.Lookup(topic, 0)
	equal(start.Offset, int64(40))
	_, err = admin.DeleteTopic(s.ctx, topic)
	must(err)
	_, err = admin.DeleteTopic(s.ctx, topic)
	expect(err, kerr.UnknownTopicOrPartition)
}

// read polls until there are count records.
func (s smoke) read(client *kgo.Client, count int) []*kgo.Record {
	var records []*kgo.Record
	for len(records) < count {
		fetches := client.PollFetches(s.ctx)
		must(fetches.Err())
		records = append(records, fetches.Records()...)
	}
	return records
}

func must(err error) {
	if err != nil {
		fail(err)
	}
}

func expect(err, expected error) {
	if err != expected {
		fail(fmt.Sprintf("%v instead of %v", err, expected))
	}
}

func equal[T comparable](found, expected T) {
	if found != expected {
		fail(fmt.Sprintf("%v instead of %v", found, expected))
	}
}

func fail(why any) {
	panic(fmt.Sprint("smoke: ", why))
}
