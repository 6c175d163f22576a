// What an application that uses OpenAI's own Node SDK can do.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';
import { client, model, messages } from './endpoint.mjs';

test('models are listed', async () => {
  const ids = [];
  for await (const entry of client.models.list()) ids.push(entry.id);
  assert.ok(ids.includes(model), ids.join());
});

test('a chat answer arrives whole', async () => {
  const answer = await client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 40 });
  assert.equal(answer.choices[0].finish_reason, 'stop');
  assert.match(answer.choices[0].message.content, /\.$/);
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
});

test('a stream brings the same words piece by piece', async () => {
  const ask = { model, messages, temperature: 0, max_tokens: 40 };
  const whole = (await client.chat.completions.create(ask)).choices[0].message.content;
  let text = '';
  let chunks = 0;
  for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
    assert.equal(chunk.choices.length, 1, 'no chunk of usage alone was asked for');
    text += chunk.choices[0].delta.content ?? '';
    chunks += 1;
  }
  assert.equal(text, whole);
  assert.ok(chunks > 5);
});

test('a stream that asks for usage ends with it', async () => {
  const ask = { model, messages, temperature: 0, max_tokens: 4, stream: true, stream_options: { include_usage: true } };
  const chunks = [];
  for await (const chunk of await client.chat.completions.create(ask)) chunks.push(chunk);
  assert.equal(chunks.at(-1).usage.completion_tokens, 4);
  assert.deepEqual(chunks.at(-1).choices, []);
});

test('the stream helper assembles the answer', async () => {
  const stream = client.chat.completions.stream({ model, messages, temperature: 0, max_tokens: 40 });
  assert.match(await stream.finalContent(), /\.$/);
});

test('a tool is run and its result leads to an answer', async () => {
  const cities = [];
  const tools = [
    {
      type: 'function',
      function: {
        name: 'get_weather',
        description: 'The weather of a city',
        parameters: {
          type: 'object',
          properties: { city: { type: 'string', enum: ['Paris', 'Rome'] } },
          required: ['city'],
          additionalProperties: false,
        },
        parse: JSON.parse,
        function: ({ city }) => {
          cities.push(city);
          return 'Sunny, 31 degrees';
        },
      },
    },
  ];
  const ask = { model, messages: [{ role: 'user', content: 'Weather in Rome?' }], tools, temperature: 0, max_tokens: 200 };
  const content = await client.chat.completions.runTools(ask, { maxChatCompletions: 3 }).finalContent();
  assert.equal(cities.length, 1);
  assert.ok(['Paris', 'Rome'].includes(cities[0]));
  assert.match(content, /\.$/);
});

test('embeddings come back as numbers', async () => {
  const answer = await client.embeddings.create({ model, input: ['hello', 'a second text'] });
  assert.equal(answer.data.length, 2);
  assert.equal(answer.data[0].embedding.length, 256);
  assert.ok(answer.data[0].embedding.every(Number.isFinite));
});

test('completions work', async () => {
  const answer = await client.completions.create({ model, prompt: 'Hello', temperature: 0, max_tokens: 5 });
  assert.equal(answer.usage.completion_tokens, 5);
  assert.equal(answer.choices[0].finish_reason, 'length');
});

test('text beyond ASCII survives a stream', async () => {
  const ask = { model, messages: [{ role: 'user', content: '你好 👋' }], max_tokens: 60, stream: true, grammar: 'root ::= "中台 ✓ 🚀"' };
  let text = '';
  for await (const chunk of await client.chat.completions.create(ask)) text += chunk.choices[0].delta.content ?? '';
  assert.equal(text, '中台 ✓ 🚀');
});

test('a bad body is a BadRequestError', async () => {
  await assert.rejects(client.chat.completions.create({ model, messages: 'not a list' }), OpenAI.BadRequestError);
});

test('a wrong key is an AuthenticationError', async () => {
  const stranger = client.withOptions({ apiKey: 'sk-sluice-wrong' });
  await assert.rejects(stranger.chat.completions.create({ model, messages }), OpenAI.AuthenticationError);
});

if (!process.env.SLUICE_DIRECT) {
  // A model server alone takes any name; knowing the models is the gateway's.
  test('an unknown model is a NotFoundError with code model_not_found', async () => {
    await assert.rejects(client.chat.completions.create({ model: 'no-such-model', messages }), (error) => {
      assert.ok(error instanceof OpenAI.NotFoundError, String(error));
      assert.equal(error.code, 'model_not_found');
      assert.ok(error.requestID, 'an error carries its request id');
      return true;
    });
  });
}
