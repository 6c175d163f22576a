// A page in a real browser calls Sluice from another origin. What the page saw is printed as JSON.
import { chromium } from 'playwright-core';

const { PAGE_URL, SLUICE_URL, SLUICE_KEY, SLUICE_MODEL } = process.env;
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu'],
});
try {
  const page = await browser.newPage();
  await page.goto(PAGE_URL);
  const seen = await page.evaluate(
    async ([url, key, model]) => {
      const call = (headers, body) =>
        fetch(`${url}/v1/chat/completions`, { method: 'POST', headers, body: JSON.stringify(body) });
      const json = { 'content-type': 'application/json' };
      const body = { model, messages: [{ role: 'user', content: 'hello' }], max_tokens: 8 };
      const attempt = async (run) => {
        try {
          return await run();
        } catch (error) {
          return { blocked: String(error) };
        }
      };
      return {
        whole: await attempt(async () => {
          const answer = await call({ ...json, authorization: `Bearer ${key}` }, body);
          return { status: answer.status, id: answer.headers.get('x-request-id'), words: (await answer.json()).object };
        }),
        stream: await attempt(async () => {
          const answer = await call({ ...json, authorization: `Bearer ${key}` }, { ...body, stream: true });
          return { status: answer.status, done: (await answer.text()).includes('[DONE]') };
        }),
        refused: await attempt(async () => {
          const answer = await call({ ...json, authorization: 'Bearer wrong' }, body);
          return { status: answer.status, code: (await answer.json()).error.code };
        }),
      };
    },
    [SLUICE_URL, SLUICE_KEY, SLUICE_MODEL],
  );
  console.log(JSON.stringify(seen));
} finally {
  await browser.close();
}
