// kafkajs behind one JSON request a line; what each request means is told in harness/adapter.py.
// Producing and administration only: kafkajs consumes through groups alone.
'use strict'

const path = require('path')
const readline = require('readline')
const { readFileSync } = require('fs')

// Packages are installed by tests/run into tests/.cache/js, not beside this file.
const modules = path.resolve(__dirname, '..', '..', '.cache', 'js', 'node_modules')
const load = name => require(require.resolve(name, { paths: [modules] }))

const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = load('kafkajs')
const snappy = load('snappyjs')
const lz4 = load('lz4-napi')
const zstd = load('@bokuweb/zstd-wasm')

const CODECS = { none: 0, gzip: 1, snappy: 2, lz4: 3, zstd: 4 }

// Only compress is ever called: nothing is consumed here.
const producing = compress => () => ({
  compress,
  decompress: async () => { throw new Error('this adapter does not consume') },
})
CompressionCodecs[CompressionTypes.Snappy] = producing(async encoder => Buffer.from(snappy.compress(encoder.buffer)))
CompressionCodecs[CompressionTypes.LZ4] = producing(async encoder => lz4.compressFrame(encoder.buffer))
CompressionCodecs[CompressionTypes.ZSTD] = producing(async encoder => Buffer.from(zstd.compress(encoder.buffer, 3)))

const kafka = new Kafka({
  clientId: 'kafkajs-test',
  brokers: [process.argv[2]],
  logLevel: logLevel.ERROR,
  logCreator: () => ({ log }) => console.error(log.message, log.error || ''),
  requestTimeout: 30000,
  retry: { retries: 4, initialRetryTime: 100 },
})

const bytes = text => (text === null ? null : Buffer.from(text, 'base64'))

async function withAdmin(action) {
  const admin = kafka.admin()
  await admin.connect()
  try {
    return await action(admin)
  } finally {
    await admin.disconnect()
  }
}

async function withProducer(action) {
  const producer = kafka.producer({ allowAutoTopicCreation: false })
  await producer.connect()
  try {
    return await action(producer)
  } finally {
    await producer.disconnect()
  }
}

// kafkajs takes headers as an object: a repeated name becomes an array under the first one's place.
function headersOf(pairs) {
  const headers = {}
  for (const [name, value] of pairs) {
    const data = bytes(value)
    headers[name] = name in headers ? [].concat(headers[name], data) : data
  }
  return headers
}

const operations = {
  async version() {
    return { version: JSON.parse(readFileSync(path.join(modules, 'kafkajs', 'package.json'))).version }
  },

  async create({ topic, partitions, config }) {
    const configEntries = Object.entries(config).map(([name, value]) => ({ name, value }))
    const topics = [{ topic, numPartitions: partitions, configEntries }]
    const created = await withAdmin(admin => admin.createTopics({ topics, waitForLeaders: true }))
    // kafkajs turns TOPIC_ALREADY_EXISTS into false.
    if (!created) throw Object.assign(new Error(`${topic} exists, or is marked for deletion`), { code: 36 })
    return {}
  },

  async delete({ topic }) {
    await withAdmin(admin => admin.deleteTopics({ topics: [topic] }))
    return {}
  },

  async produce({ topic, partition, codec, records }) {
    const messages = records.map(record => ({
      partition,
      key: bytes(record.k),
      value: bytes(record.v),
      timestamp: record.t === null ? undefined : String(record.t),
      headers: headersOf(record.h),
    }))
    return withProducer(async producer => {
      // One request carries one batch a partition: the large record goes alone, as the batch limit is the broker's.
      const offsets = []
      for (const group of splitLarge(messages)) {
        const [answer] = await producer.send({ topic, acks: -1, compression: CODECS[codec], messages: group })
        const base = Number(answer.baseOffset)
        group.forEach((_, index) => offsets.push(base + index))
      }
      return { offsets }
    })
  },

  async produce_file({ topic, path: file, codec }) {
    const lines = readFileSync(file, 'utf8').split('\n').filter(line => line !== '')
    await withProducer(async producer => {
      for (let at = 0; at < lines.length; at += 2000) {
        const messages = lines.slice(at, at + 2000).map(line => {
          const [key, timestamp, value] = line.split('\t')
          return { key, timestamp, value }
        })
        await producer.send({ topic, acks: -1, compression: CODECS[codec], messages })
      }
    })
    return { count: lines.length }
  },
}

function splitLarge(messages) {
  const groups = [[]]
  for (const message of messages) {
    const large = message.value !== null && message.value.length >= 100000
    if (large) groups.push([message], [])
    else groups[groups.length - 1].push(message)
  }
  return groups.filter(group => group.length > 0)
}

async function main() {
  await zstd.init()
  for await (const line of readline.createInterface({ input: process.stdin, crlfDelay: Infinity })) {
    const request = JSON.parse(line)
    let answer
    try {
      answer = await operations[request.op](request)
    } catch (error) {
      console.error(error)
      const cause = error.name === 'KafkaJSNumberOfRetriesExceeded' && error.cause ? error.cause : error
      answer = { error: cause.code === undefined ? -1 : cause.code, message: String(cause) }
    }
    process.stdout.write(JSON.stringify(answer) + '\n')
  }
  process.exit(0)
}

main()
