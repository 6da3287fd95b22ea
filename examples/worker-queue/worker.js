'use strict';

const fs = require('fs');
const os = require('os');
const { STREAM, GROUP, DONE, connect } = require('./queue');

// How long it waits for a job before it looks around again, in ms.
const WAIT = 5000;
// A job that its worker hasn't finished after this time is taken over, in ms.
const CLAIM_AFTER = 60000;
// How long a job takes, in ms.
const JOB = Number(process.env.JOB_MS || 2000);

let stopping = false;

async function next(redis, me) {
  const claimed = await redis.xAutoClaim(STREAM, GROUP, me, CLAIM_AFTER, '0', { COUNT: 1 });
  const left = claimed.messages.find(Boolean);
  if (left) return left;
  const read = await redis.xReadGroup(GROUP, me, { key: STREAM, id: '>' }, { COUNT: 1, BLOCK: WAIT });
  return read?.[0].messages[0];
}

async function main() {
  const redis = await connect();
  const me = os.hostname();
  console.log(`${me} works`);
  while (!stopping) {
    fs.writeFileSync('/tmp/alive', '');
    const job = await next(redis, me);
    if (!job) continue;
    // Here the work would be.
    await new Promise((resolve) => setTimeout(resolve, JOB));
    // In one step: what is counted as done is not done again.
    await redis.multi().xAck(STREAM, GROUP, job.id).xDel(STREAM, job.id).incr(DONE).exec();
    console.log(`${job.id} done`);
  }
  await redis.quit();
  console.log(`${me} has finished`);
}

// What it is at is finished; then the loop ends.
process.on('SIGTERM', () => { stopping = true; });
process.on('SIGINT', () => { stopping = true; });

// One that loses Redis ends, and is started again.
main().then(() => process.exit(0), (error) => {
  console.error(error.message);
  process.exit(1);
});
