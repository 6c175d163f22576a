// An aborted stream frees the model server.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { slowClient, slowModel, messages } from './endpoint.mjs';

const ask = { model: slowModel, messages, max_tokens: 4000, logit_bias: { 4: -100 }, stream: true };

async function busySlots() {
  const headers = { authorization: `Bearer ${process.env.SLUICE_KEY}` };
  const answer = await fetch(`${process.env.SLUICE_SLOTS_URL}/slots`, { headers });
  assert.equal(answer.status, 200);
  return (await answer.json()).filter((slot) => slot.is_processing).length;
}

async function becomesIdle(milliseconds) {
  const deadline = Date.now() + milliseconds;
  while ((await busySlots()) > 0) {
    assert.ok(Date.now() < deadline, `a slot is still busy after ${milliseconds} ms`);
    await sleep(20);
  }
}

test('leaving the loop of a stream frees the slot', async () => {
  await becomesIdle(10000);
  let seen = 0;
  for await (const _ of await slowClient.chat.completions.create(ask)) {
    seen += 1;
    if (seen === 3) {
      assert.equal(await busySlots(), 1);
      break;
    }
  }
  await becomesIdle(1000);
});

test('an AbortSignal frees the slot', async () => {
  await becomesIdle(10000);
  const stop = new AbortController();
  const stream = await slowClient.chat.completions.create(ask, { signal: stop.signal });
  const reader = stream[Symbol.asyncIterator]();
  await reader.next();
  assert.equal(await busySlots(), 1);
  stop.abort();
  await becomesIdle(1000);
});
