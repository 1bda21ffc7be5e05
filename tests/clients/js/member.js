// Members of consumer groups by kafkajs; what it does and tells is told in groups/member.py.
//   node member.js CLIENT BOOTSTRAP TOPIC GROUP:ASSIGNOR...
'use strict'

const crypto = require('crypto')
const path = require('path')

// Packages are installed by tests/run into tests/.cache/js, not beside this file.
const modules = path.resolve(__dirname, '..', '..', '.cache', 'js', 'node_modules')
const load = name => require(require.resolve(name, { paths: [modules] }))
const { Kafka, PartitionAssigners, logLevel } = load('kafkajs')

const SESSION_MS = 6000
const BATCH = 250
const WORK_MS = 100

const [clientId, bootstrap, topic, ...memberships] = process.argv.slice(2)

// kafkajs calls its assigner by a name of its own; under Kafka's name it can share a group with other clients.
const ASSIGNERS = {
  roundrobin: arguments_ => ({ ...PartitionAssigners.roundRobin(arguments_), name: 'roundrobin' }),
}

const tell = (...told) => process.stdout.write(JSON.stringify([Date.now(), ...told]) + '\n')
const pause = ms => new Promise(resolve => setTimeout(resolve, ms))

async function join(group, assignor) {
  const kafka = new Kafka({
    clientId,
    brokers: [bootstrap],
    logLevel: logLevel.ERROR,
    logCreator: () => ({ log }) => console.error(log.message, log.error || ''),
    retry: { retries: 50, initialRetryTime: 100, maxRetryTime: 500 },
  })
  const consumer = kafka.consumer({
    groupId: group,
    partitionAssigners: [ASSIGNERS[assignor]],
    sessionTimeout: SESSION_MS,
    heartbeatInterval: 500,
    rebalanceTimeout: 20000,
  })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachBatchAutoResolve: false,
    eachBatch: async ({ batch, resolveOffset, heartbeat, isRunning, isStale }) => {
      for (let at = 0; at < batch.messages.length && isRunning() && !isStale(); at += BATCH) {
        const messages = batch.messages.slice(at, at + BATCH)
        const first = Number(messages[0].offset)
        const next = Number(messages[messages.length - 1].offset) + 1
        const digest = crypto.createHash('sha1')
        messages.forEach(message => digest.update(message.value))
        tell(group, 'processed', batch.partition, first, next, digest.digest('hex'))
        await pause(WORK_MS)
        try {
          await consumer.commitOffsets([{ topic, partition: batch.partition, offset: String(next) }])
        } catch (error) {
          tell(group, 'refused', batch.partition, first, next, String(error.type || error.message))
          throw error
        }
        tell(group, 'committed', batch.partition, first, next, '')
        resolveOffset(String(next - 1))
        await heartbeat()
      }
    },
  })
  return consumer
}

async function main() {
  const consumers = await Promise.all(memberships.map(membership => join(...membership.split(':'))))
  process.stdin.resume()
  process.stdin.on('end', async () => {
    await Promise.all(consumers.map(consumer => consumer.disconnect()))
    process.exit(0)
  })
}

main().catch(error => {
  console.error(error)
  process.exit(1)
})
