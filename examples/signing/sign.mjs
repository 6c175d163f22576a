// Sign a request to Sluice: RFC 9421 with HMAC-SHA256. Node 20, no packages.
//
//   SLUICE_SIGNING_SECRET=sk-sign-... node sign.mjs KEY_ID URL BODY_FILE   sends a POST, prints the answer
//   node sign.mjs --vectors vectors.json                                   checks itself
import { createHash, createHmac, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { deepStrictEqual } from 'node:assert';

/** The headers to send with the request. */
export function sign({ keyId, secret, method, url, body = null, created, lifetime = 60, nonce }) {
  const { host, pathname, search } = new URL(url); // `host` is in lower case and without the scheme's own port
  created ??= Math.floor(Date.now() / 1000);
  nonce ??= randomBytes(16).toString('base64url');
  const covered = [
    ['@method', method],
    ['@authority', host],
    ['@path', pathname],
    ['@query', search || '?'],
  ];
  const headers = {};
  if (body !== null) {
    headers['content-digest'] = `sha-256=:${createHash('sha256').update(body).digest('base64')}:`;
    covered.push(['content-digest', headers['content-digest']]);
  }
  const names = covered.map(([name]) => `"${name}"`).join(' ');
  const parameters =
    `(${names});created=${created};expires=${created + lifetime};nonce="${nonce}"` +
    `;keyid="${keyId}";alg="hmac-sha256"`;
  const lines = covered.map(([name, value]) => `"${name}": ${value}\n`).join('');
  // The secret's own characters are the key: nothing is decoded.
  const tag = createHmac('sha256', secret).update(`${lines}"@signature-params": ${parameters}`).digest('base64');
  headers['signature-input'] = `sluice=${parameters}`;
  headers.signature = `sluice=:${tag}:`;
  return headers;
}

const [first, ...rest] = process.argv.slice(2);
if (first === '--vectors') {
  for (const { name, key_id: keyId, headers, ...vector } of JSON.parse(readFileSync(rest[0], 'utf8'))) {
    deepStrictEqual(sign({ keyId, ...vector }), headers, name);
  }
  console.log('all vectors agree');
} else if (first) {
  const [url, file] = rest;
  const body = readFileSync(file);
  const headers = sign({ keyId: first, secret: process.env.SLUICE_SIGNING_SECRET, method: 'POST', url, body });
  const answer = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body });
  console.log(await answer.text());
  process.exitCode = answer.ok ? 0 : 1;
}
