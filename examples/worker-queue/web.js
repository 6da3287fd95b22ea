'use strict';

const express = require('express');
const { STREAM, DONE, connect } = require('./queue');

const port = Number(process.env.PORT || 3000);
const version = process.env.APP_VERSION || '1';

async function main() {
  const redis = await connect();
  const app = express();
  app.disable('x-powered-by');
  app.use((request, response, next) => {
    response.set('x-release', version);
    next();
  });
  const route = (handler) => (request, response) =>
    handler(request, response).catch((error) => response.status(503).json({ error: error.message }));

  app.get('/health', (request, response) => {
    response.status(redis.isReady ? 200 : 503).send(redis.isReady ? 'ok\n' : 'no Redis\n');
  });
  app.get('/', route(async (request, response) => {
    const [taken, done] = await Promise.all([redis.xLen(STREAM), redis.get(DONE)]);
    response.json({ version, waiting: taken, done: Number(done || 0) });
  }));
  app.post('/jobs', route(async (request, response) => {
    const id = await redis.xAdd(STREAM, '*', { at: String(Date.now()) });
    response.status(202).json({ id });
  }));

  const server = app.listen(port, () => console.log(`version ${version} listens on ${port}`));
  const stop = () => {
    server.close(() => process.exit(0));
    server.closeIdleConnections?.();
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
}

// One that can't start ends, and is started again.
main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
