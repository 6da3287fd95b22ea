// A WebSocket client of `ws`: every kind of message there and back; then says "ready", and waits to be told that the
// service restarts, in silence and in the midst of messages in fragments.
const assert = require('assert');
const crypto = require('crypto');
const { once } = require('events');
const { WebSocket } = require('ws');
const url = process.argv[2];
const hows = process.argv[3].split(',');

async function open(deflate) {
  const socket = new WebSocket(url, { perMessageDeflate: deflate ? { threshold: 0 } : false, maxPayload: 64 << 20 });
  await once(socket, 'open');
  assert.strictEqual(socket.extensions.includes('permessage-deflate'), deflate, socket.extensions);
  const [there, wanted] = [[], []];
  socket.on('message', (data, binary) => {
    if (wanted.length) wanted.shift()([data, binary]);
    else there.push([data, binary]);
  });
  socket.next = () => (there.length ? there.shift() : new Promise((done) => wanted.push(done)));
  return socket;
}

async function echoed(socket, data) {
  socket.send(data);
  const [back, binary] = await socket.next();
  assert.strictEqual(binary, Buffer.isBuffer(data));
  assert.ok(back.equals(Buffer.from(data)), `${data.length} bytes come back as they were`);
}

async function talk(deflate) {
  const socket = await open(deflate);
  for (const size of [0, 1, 125, 126, 127, 65535, 65536, 1 << 20]) {
    await echoed(socket, 'ü'.repeat(size / 2));
    await echoed(socket, crypto.randomBytes(size));
  }
  const pong = once(socket, 'pong');
  socket.send('one ', { fin: false });
  socket.send('', { fin: false });
  socket.ping('in between');
  socket.send('two '.repeat(10000), { fin: false });
  socket.send('three', { fin: true });
  assert.strictEqual((await pong)[0].toString(), 'in between');
  assert.strictEqual((await socket.next())[0].toString(), `one ${'two '.repeat(10000)}three`);
  for (let i = 0; i < 200; i++) socket.send(`${i}`);
  for (let i = 0; i < 200; i++) assert.strictEqual((await socket.next())[0].toString(), `${i}`);
  socket.close(4001, 'enough');
  assert.strictEqual((await once(socket, 'close'))[0], 4001);
  const other = await open(deflate);
  const closed = once(other, 'close');
  other.send('close 4002 bye');
  const [code, reason] = await closed;
  assert.strictEqual(`${code} ${reason}`, '4002 bye');
}

async function restarted(deflate, how) {
  const socket = await open(deflate);
  if (how === 'drip') socket.send('drip');
  const timer = setInterval(() => {
    if (how === 'fragments' && socket.readyState === WebSocket.OPEN) {
      socket.send(crypto.randomBytes(3000).toString('hex'), { fin: false });
    }
  }, 3);
  return async () => {
    const [code, reason] = await once(socket, 'close');
    clearInterval(timer);
    assert.strictEqual(`${code} ${reason}`, '1012 service restart', how);
  };
}

async function main() {
  await talk(true);
  await talk(false);
  const waits = [];
  for (const deflate of [true, false]) {
    for (const how of hows) waits.push((await restarted(deflate, how))());
  }
  await new Promise((done) => setTimeout(done, 200));
  console.log('ready');
  await Promise.all(waits);
  console.log('done');
}
main().catch((error) => { console.log(error.stack); process.exit(1); });
