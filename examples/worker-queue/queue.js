'use strict';

// What web and worker must agree on.

const { createClient } = require('redis');

const STREAM = 'jobs';
const GROUP = 'workers';
const DONE = 'jobs:done';

async function connect() {
  const redis = createClient({ url: process.env.REDIS_URL || 'redis://localhost:6379' });
  redis.on('error', (error) => console.error('redis:', error.message));
  await redis.connect();
  try {
    // From the first job on, also those that came before any worker did.
    await redis.xGroupCreate(STREAM, GROUP, '0', { MKSTREAM: true });
  } catch (error) {
    if (!error.message.startsWith('BUSYGROUP')) throw error;
  }
  return redis;
}

module.exports = { STREAM, GROUP, DONE, connect };
