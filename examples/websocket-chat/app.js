'use strict';

const fs = require('fs');
const http = require('http');
const { createClient } = require('redis');
const { WebSocket, WebSocketServer } = require('ws');

const port = Number(process.env.PORT || 3000);
const version = process.env.APP_VERSION || '1';
const ROOM = 'chat';
// The longest message, in bytes.
const MESSAGE_MAX = 2000;
// A client that doesn't answer a ping by the next one is gone, in ms.
const PING_EVERY = 30000;

const page = fs.readFileSync('index.html');
const redis = createClient({ url: process.env.REDIS_URL || 'redis://localhost:6379' });
const listener = redis.duplicate();
for (const client of [redis, listener]) {
  client.on('error', (error) => console.error('redis:', error.message));
}

const server = http.createServer((request, response) => {
  response.setHeader('x-release', version);
  if (request.url === '/health') {
    // Without both connections nobody would hear anybody.
    const ready = redis.isReady && listener.isReady;
    response.writeHead(ready ? 200 : 503).end(ready ? 'ok\n' : 'no Redis\n');
  } else if (request.url === '/') {
    response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(page);
  } else {
    response.writeHead(404).end('try /\n');
  }
});

const sockets = new WebSocketServer({ server, path: '/ws', maxPayload: MESSAGE_MAX });
sockets.on('connection', (socket) => {
  socket.alive = true;
  socket.on('pong', () => { socket.alive = true; });
  socket.on('error', () => {});
  socket.on('message', (data) => {
    redis.publish(ROOM, data.toString()).catch((error) => console.error('redis:', error.message));
  });
});

setInterval(() => {
  for (const socket of sockets.clients) {
    if (!socket.alive) {
      socket.terminate();
    } else {
      socket.alive = false;
      socket.ping();
    }
  }
}, PING_EVERY).unref();

async function start() {
  await Promise.all([redis.connect(), listener.connect()]);
  await listener.subscribe(ROOM, (message) => {
    for (const socket of sockets.clients) {
      if (socket.readyState === WebSocket.OPEN) socket.send(message);
    }
  });
}

function stop() {
  server.close(() => process.exit(0));
  server.closeIdleConnections?.();
  for (const socket of sockets.clients) socket.close(1001, 'the server stops');
}
process.on('SIGTERM', stop);
process.on('SIGINT', stop);

server.listen(port, () => console.log(`version ${version} listens on ${port}`));
start().catch((error) => console.error('redis:', error.message));
