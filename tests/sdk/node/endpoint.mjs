// Where the tests send their calls; e2e/test_node_sdk.py says so by the environment.
import OpenAI from 'openai';

function need(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set; run these tests with pytest tests/e2e/test_node_sdk.py`);
  return value;
}

// No retries of its own, because the tests are about what the gateway does. A model server alone closes kept-alive
// connections under the client's hands, which the SDK's own retries are for.
const options = { apiKey: need('SLUICE_KEY'), maxRetries: process.env.SLUICE_DIRECT ? 2 : 0, timeout: 20000 };

export const client = new OpenAI({ ...options, baseURL: `${need('SLUICE_URL')}/v1` });
export const slowClient = new OpenAI({ ...options, baseURL: `${need('SLUICE_SLOW_URL')}/v1` });
export const model = need('SLUICE_MODEL');
export const slowModel = need('SLUICE_SLOW_MODEL');
export const messages = [{ role: 'user', content: 'Hello there' }];
