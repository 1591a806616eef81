import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { StorageAccessError } from "../../src/errors.ts";
import type { RetryPolicy } from "../../src/io/retry.ts";
import { openStorage } from "../../src/storage/open.ts";
import { azureConfig, startAzurite } from "../support/azurite.ts";
import type { Azurite } from "../support/azurite.ts";
import { slowSource } from "../support/bodies.ts";
import { makeCertificates } from "../support/certificates.ts";
import type { Certificates } from "../support/certificates.ts";
import { TokenServer, azureJwt } from "../support/token-server.ts";
import { keysOf, text } from "./contract-lists.ts";
import { until } from "../support/until.ts";

const signal = new AbortController().signal;
const MIB = 1024 * 1024;
const LIFE_MS = 2000;
const policy: RetryPolicy = { attempts: 3, baseMs: 1, capMs: 5, totalMs: 60_000 };

let directory = "";
let certificates: Certificates | undefined;
let azurite: Azurite | undefined;
const environment = { ...process.env };

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "walnut-azure-identity-"));
  certificates = await makeCertificates(directory);
  assert.ok(certificates !== undefined, "openssl is missing");
  azurite = await startAzurite({ certificates });
});
after(async () => {
  await azurite?.stop();
  await rm(directory, { recursive: true });
});

function setEnvironment(values: Readonly<Record<string, string>>): void {
  for (const name of Object.keys(process.env)) {
    if (/^(AZURE_|IDENTITY_|MSI_)/.test(name)) delete process.env[name];
  }
  Object.assign(process.env, values);
}

/** Stores objects until there was a second token, and then one of several parts. */
async function store(prefix: string, tokenCount: () => number): Promise<void> {
  assert.ok(azurite !== undefined && certificates !== undefined);
  const { accessKey: _, ...keyless } = azureConfig(azurite, {
    prefix,
    caFile: certificates.authorityFile,
    bufferBytes: MIB,
  });
  const options = { signal, requestTimeoutMs: 20_000, uploadConcurrency: 2, retryPolicy: policy };
  await using storage = await openStorage(keyless, options);
  await storage.put("small", text("x"), { signal });
  // Longer than the token of its beginning lives.
  const endsAtMs = Date.now() + LIFE_MS + 1000;
  const body = slowSource([5 * MIB, 2 * MIB], () =>
    until("the first token has ended", async () => Date.now() > endsAtMs),
  );
  await storage.put("large", body, { signal });
  assert.deepEqual(await keysOf(storage, ""), ["large", "small"]);
  assert.equal((await storage.stat("large", { signal })).sizeBytes, 7 * MIB);
  assert.ok(tokenCount() >= 2, `${tokenCount()} tokens`);
}

test("a managed identity's tokens of seconds are renewed during puts (P23)", async () => {
  let count = 0;
  await using imds = await TokenServer.start(({ headers, url }) => {
    if (headers["x-identity-header"] !== "secret") return { status: 401, body: {} };
    count++;
    const { token, expiresOn } = azureJwt(LIFE_MS);
    const resource = url.searchParams.get("resource");
    const body = {
      access_token: token,
      expires_on: `${expiresOn}`,
      resource,
      token_type: "Bearer",
    };
    return { status: 200, body };
  });
  setEnvironment({ IDENTITY_ENDPOINT: `${imds.origin}/token`, IDENTITY_HEADER: "secret" });
  try {
    await store("managed", () => count);
  } finally {
    setEnvironment({});
    Object.assign(process.env, environment);
  }
});

test("a pod's workload identity is exchanged at the authority (P23)", async () => {
  assert.ok(certificates !== undefined);
  let count = 0;
  let origin = "";
  await using entra = await TokenServer.start(({ url, body }) => {
    if (url.pathname.endsWith("/.well-known/openid-configuration")) {
      const base = `${origin}/tenant-1`;
      const endpoints = {
        token_endpoint: `${base}/oauth2/v2.0/token`,
        authorization_endpoint: `${base}/oauth2/v2.0/authorize`,
        end_session_endpoint: `${base}/logout`,
        issuer: `${base}/v2.0`,
        jwks_uri: `${base}/keys`,
      };
      return { status: 200, body: endpoints };
    }
    const form = new URLSearchParams(body);
    if (form.get("client_assertion") !== "the pod's token") return { status: 400, body: {} };
    count++;
    const body_ = {
      access_token: azureJwt(LIFE_MS).token,
      expires_in: LIFE_MS / 1000,
      token_type: "Bearer",
    };
    return { status: 200, body: body_ };
  }, certificates);
  origin = entra.origin;
  const tokenFile = join(directory, "federated");
  await writeFile(tokenFile, "the pod's token");
  setEnvironment({
    AZURE_AUTHORITY_HOST: origin,
    AZURE_TENANT_ID: "tenant-1",
    AZURE_CLIENT_ID: "client-1",
    AZURE_FEDERATED_TOKEN_FILE: tokenFile,
  });
  try {
    await store("workload", () => count);
  } finally {
    setEnvironment({});
    Object.assign(process.env, environment);
  }
});

test("sources that give nothing are told in few words, with the way out", async () => {
  await using imds = await TokenServer.start(() => ({
    status: 400,
    body: { error: "invalid_request", error_description: "Identity not found" },
  }));
  setEnvironment({ IDENTITY_ENDPOINT: `${imds.origin}/token`, IDENTITY_HEADER: "secret" });
  try {
    const target = { endpoint: "http://127.0.0.1:1/acc", account: "acc", container: "c" };
    const { accessKey: _, ...keyless } = azureConfig({ ...target, accessKey: "" });
    const options = { signal, requestTimeoutMs: 20_000, uploadConcurrency: 2, retryPolicy: policy };
    await using storage = await openStorage(keyless, options);
    await assert.rejects(storage.stat("a", { signal }), (error) => {
      assert.ok(error instanceof StorageAccessError);
      assert.match(error.message, /^no credentials for azure:.*ManagedIdentityCredential/);
      assert.match(error.message, /: neither a key nor a SAS is set, and no identity gave a token/);
      assert.doesNotMatch(error.message, /Visual Studio|Azure CLI|PowerShell|Environment/);
      assert.ok(error.message.length < 400, error.message);
      assert.match(error.hint ?? "", /AZURE_STORAGE_ACCESS_KEY/);
      return true;
    });
  } finally {
    setEnvironment({});
    Object.assign(process.env, environment);
  }
});
