// A real OpenID provider (npm oidc-provider) on loopback, for tests/e2e/test_credentials.py.
//
//   PORT=14000 TTL=300 node idp.mjs
//
// Clients get tokens by client_credentials: JWTs for the resource https://sluice.test, opaque ones for
// https://opaque.test. POST /__rotate signs with a new key and still shows the old one, POST /__retire shows the newest
// only, GET /__asked counts what was asked: nothing of that is OpenID.
import http from 'node:http';
import * as jose from 'jose';
import Provider from 'oidc-provider';

const PORT = Number(process.env.PORT ?? 14000);
const ISSUER = `http://127.0.0.1:${PORT}`;
const TTL = Number(process.env.TTL ?? 300);
const SCOPES = 'llm.chat llm.admin';
const RESOURCES = { 'https://sluice.test': 'jwt', 'https://opaque.test': 'opaque' };

const client = (id, tenant) => ({
  client_id: id,
  client_secret: `${id}-secret`,
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
  scope: SCOPES,
  'urn:tenant': tenant,
});
// `team-x` belongs to a tenant that the gateway does not know; `sluice` is the gateway itself.
const clients = [client('team-a', 'acme'), client('team-b', 'lab'), client('team-x', 'nobody'), client('sluice', 'none')];

async function key(kid) {
  const { privateKey } = await jose.generateKeyPair('RS256', { modulusLength: 2048, extractable: true });
  return { ...(await jose.exportJWK(privateKey)), kid, use: 'sig', alg: 'RS256' };
}

function build(keys) {
  const provider = new Provider(ISSUER, {
    jwks: { keys }, // the first signs, all are shown
    scopes: ['openid', ...SCOPES.split(' ')],
    clientAuthMethods: ['client_secret_basic', 'client_secret_post'],
    clients,
    extraClientMetadata: { properties: ['urn:tenant'] },
    extraTokenClaims: (ctx) => ({ tenant: ctx.oidc.client['urn:tenant'] }),
    ttl: { ClientCredentials: TTL, AccessToken: TTL },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'https://sluice.test',
        useGrantedResource: () => true,
        getResourceServerInfo: (_, resource) => ({
          scope: SCOPES,
          audience: resource,
          accessTokenTTL: TTL,
          accessTokenFormat: RESOURCES[resource],
          jwt: { sign: { alg: 'RS256' } },
        }),
      },
    },
  });
  provider.on('server_error', (_, fault) => console.error('server_error', fault));
  return provider.callback();
}

let keys = [await key('k1')];
let made = 1;
let answer = build(keys);
const asked = {};
http
  .createServer(async (request, response) => {
    const show = (value) => response.end(JSON.stringify(value));
    const path = request.url.split('?')[0];
    if (path === '/__asked') return show(asked);
    if (path === '/__rotate') keys = [await key(`k${++made}`), ...keys];
    if (path === '/__retire') keys = keys.slice(0, 1);
    if (path === '/__rotate' || path === '/__retire') {
      answer = build(keys);
      return show(keys.map((one) => one.kid));
    }
    asked[path] = (asked[path] ?? 0) + 1;
    return answer(request, response);
  })
  .listen(PORT, '127.0.0.1', () => console.log('issuer', ISSUER));
