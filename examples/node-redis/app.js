'use strict';

const express = require('express');
const { createClient } = require('redis');

const port = Number(process.env.PORT || 3000);
const version = process.env.APP_VERSION || '1';

const redis = createClient({ url: process.env.REDIS_URL || 'redis://localhost:6379' });
// Without a listener an error ends the process; the client connects again by itself.
redis.on('error', (error) => console.error('redis:', error.message));

const app = express();
app.disable('x-powered-by');
app.use((request, response, next) => {
  response.set('x-release', version);
  next();
});

app.get('/', async (request, response) => {
  try {
    const visits = await redis.incr('visits');
    response.type('text').send(`version ${version}: visit ${visits}\n`);
  } catch (error) {
    response.status(503).type('text').send(`redis: ${error.message}\n`);
  }
});

// Ready means: this process can do its work. Redis is asked with a limit, so that a check never hangs.
app.get('/health', async (request, response) => {
  const late = new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error('no answer within 1 s')), 1000).unref();
  });
  try {
    await Promise.race([redis.ping(), late]);
    response.type('text').send('ok\n');
  } catch (error) {
    response.status(503).type('text').send(`redis: ${error.message}\n`);
  }
});

const server = app.listen(port, () => console.log(`version ${version} listens on ${port}`));
redis.connect().catch((error) => console.error('redis:', error.message));

function stop() {
  // No new connections; those that are idle are closed, and the others when their answer is out.
  server.close(async () => {
    await redis.quit().catch(() => {});
    process.exit(0);
  });
  server.closeIdleConnections?.();
}
process.on('SIGTERM', stop);
process.on('SIGINT', stop);
