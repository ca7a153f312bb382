// A client of the bus in JavaScript (Node 18 and later), from docs/protocol/sb1.md alone.
//
//   npm install zeromq@6 @msgpack/msgpack@3
//   node client.mjs ENDPOINT BROKER_KEY KEY_FILE NAME PEER...
//
// It says HELLO, pings, tells its PEERs hello and hears theirs, serves app.echo.NAME and asks theirs, stores
// an order in the durable topic "orders" and consumes those of all by its consumer NAME, which an operator
// has made. The key file is JSON with "public" and "secret"; the role app is enough.

import { Decoder, Encoder } from "@msgpack/msgpack"
import { randomBytes } from "node:crypto"
import { readFileSync } from "node:fs"
import { setTimeout as pause } from "node:timers/promises"
import { Dealer } from "zeromq"

const [HELLO, PING, BYE, PUBLISH, SUBSCRIBE, REQUEST, REPLY, SERVE, PULL, SETTLE] =
  [0x01, 0x02, 0x03, 0x10, 0x12, 0x14, 0x15, 0x16, 0x20, 0x21]
const [WELCOME, PONG, GOODBYE, OK, ERROR, DELIVERY, RECORD, REQUEST_DELIVERY, REPLY_DELIVERY] =
  [0x81, 0x82, 0x83, 0x84, 0x85, 0x90, 0x92, 0x94, 0x95]

// Ids go up to 2^63 - 1: those that a number cannot hold are BigInt.
const encoder = new Encoder({ useBigInt64: true })
const decoder = new Decoder({ useBigInt64: true })

function fail(problem) {
  console.error(`error: ${problem}`)
  process.exit(1)
}

class Client {
  #waiting = new Map() // ref → how its promise ends
  #records = []
  #lastId = 0
  #outgoing = Promise.resolve() // a zeromq.js socket sends one message at a time

  constructor(endpoint, brokerKey, pair) {
    this.services = new Map() // subject → function from text to text
    this.onDelivery = () => {}
    this.socket = new Dealer({
      curveServerKey: brokerKey,
      curvePublicKey: pair.public,
      curveSecretKey: pair.secret,
      // Never shown to anybody, never used twice, never left to libzmq: section 2.
      routingId: Buffer.concat([Buffer.from([1]), randomBytes(16)]),
      linger: 0,
      sendTimeout: 5000, // a lost connection takes nothing
      reconnectInterval: -1,
      heartbeatInterval: 10000,
      heartbeatTimeout: 15000,
      heartbeatTimeToLive: 30000,
    })
    this.socket.events.on("handshake:error:auth", () => fail("the broker does not allow this key"))
    this.socket.connect(endpoint)
    this.#read()
  }

  say(command, fields, body) {
    const head = Buffer.concat([Buffer.from([0x53, 0x42, 1, command]), encoder.encode(fields)])
    const frames = body === undefined ? [head] : [head, body]
    this.#outgoing = this.#outgoing
      .then(() => this.socket.send(frames))
      .catch((error) => fail(`the connection was lost: ${error.message}`))
    return this.#outgoing
  }

  // Say with an id; the answer's fields and body.
  ask(command, fields, body) {
    const id = ++this.#lastId
    return new Promise((done) => {
      this.#waiting.set(id, done)
      this.say(command, { id, ...fields }, body)
    })
  }

  hello(name) {
    return new Promise((done) => {
      this.#waiting.set("welcome", done)
      this.say(HELLO, { name, lang: "js", caps: ["durable"] })
      // Whoever has nothing else to say pings at half of the heartbeat.
      setInterval(() => this.say(PING, {}), 5000).unref()
    })
  }

  ping() {
    return new Promise((done) => {
      this.#waiting.set("pong", done)
      this.say(PING, { t: 4711 })
    })
  }

  // Up to n records; each comes again until it is settled.
  async pull(topic, consumer, n, wait) {
    await this.ask(PULL, { topic, consumer, n, wait })
    return this.#records.splice(0)
  }

  async #read() {
    for await (const [head, body] of this.socket) this.#take(head[3], decoder.decode(head.subarray(4)), body ?? Buffer.alloc(0))
  }

  #take(command, fields, body) {
    switch (command) {
      case WELCOME: return this.#end("welcome", fields)
      case PONG: return this.#end("pong", fields)
      case OK: return this.#end(fields.ref, { fields, body })
      case REPLY_DELIVERY:
        if (fields.err) fail(`${fields.num} ${fields.err}: ${fields.msg}`)
        return this.#end(fields.ref, { fields, body })
      case DELIVERY: // of one message, or of a batch
        for (const one of (fields.n ?? 1) === 1 ? [body] : decoder.decode(body)) this.onDelivery(fields.s, one.toString())
        return
      case RECORD: return this.#records.push({ seq: fields.seq, body: body.toString() })
      case REQUEST_DELIVERY: {
        const answer = this.services.get(fields.s)
        if (answer) this.say(REPLY, { r: fields.r }, answer(body.toString()))
        else this.say(REPLY, { r: fields.r, num: 404, err: "no_handler", msg: fields.s })
        return
      }
      case ERROR: return fail(`${fields.num} ${fields.err}: ${fields.msg ?? ""}`)
      case GOODBYE: if (fields.num !== 0) fail(`goodbye ${fields.num}: ${fields.reason ?? ""}`)
    }
  }

  #end(ref, answer) {
    const done = this.#waiting.get(ref)
    this.#waiting.delete(ref)
    done?.(answer)
  }
}

const [endpoint, brokerKey, keyFile, name, ...peers] = process.argv.slice(2)
if (!name) fail("usage: node client.mjs ENDPOINT BROKER_KEY KEY_FILE NAME PEER...")
setTimeout(() => fail("not done within 60 s"), 60000).unref()

const client = new Client(endpoint, brokerKey, JSON.parse(readFileSync(keyFile, "utf8")))
const welcome = await Promise.race([client.hello(name), pause(5000)])
if (!welcome) fail(`no broker answers at ${endpoint}`)
console.log(`welcome ${welcome.key}`)
await client.ping()
console.log("pong")

const heard = new Set()
let served = 0
const greet = () => client.say(PUBLISH, { s: `app.hello.${name}` }, `hello from ${name}`)
client.onDelivery = (subject, text) => {
  const peer = subject.slice(subject.lastIndexOf(".") + 1)
  if (!peers.includes(peer) || heard.has(peer)) return
  heard.add(peer)
  console.log(`heard ${text}`)
  greet() // who is new here has not heard us
}
client.services.set(`app.echo.${name}`, (text) => {
  served++
  return `${name} heard ${text}`
})
await client.ask(SERVE, { s: `app.echo.${name}` })
await client.ask(SUBSCRIBE, { sid: 1, s: "app.hello.*" })
greet()
while (heard.size < peers.length) await pause(20)

for (const peer of peers) {
  const { body } = await client.ask(REQUEST, { s: `app.echo.${peer}`, dl: 10000 }, name)
  console.log(`answer ${body}`)
}
// OK comes when the order is on disk; said again with the same mid it would be stored once.
const stored = await client.ask(PUBLISH, { s: `app.order.${name}`, mid: name }, `order of ${name}`)
console.log(`stored ${stored.fields.seq}`)
for (let orders = 0; orders < peers.length + 1;) {
  for (const { seq, body } of await client.pull("orders", name, 16, 5000)) {
    console.log(`order ${seq}: ${body}`)
    await client.ask(SETTLE, { topic: "orders", consumer: name, seqs: [seq] })
    orders++
  }
}
while (served < peers.length) await pause(20)
console.log(`served ${served}`)
await client.say(BYE, { reason: "done" })
await pause(100) // linger is 0: give it time to leave
process.exit(0)
