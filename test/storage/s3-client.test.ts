import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import http from "node:http";
import https from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import type { S3Config } from "../../src/storage/open.ts";
import { openStorage } from "../../src/storage/open.ts";
import { makeCertificates } from "../support/certificates.ts";
import { TcpFaultProxy } from "../support/fault-proxy.ts";
import { s3Config } from "../support/s3-config.ts";
import { S3Emulation, errorDocument } from "../support/s3-emulation.ts";
import { text } from "./contract-lists.ts";
import { listen } from "../support/listening.ts";

const signal = new AbortController().signal;
const scratch = await mkdtemp(join(tmpdir(), "walnut-s3-client-"));
after(() => rm(scratch, { recursive: true }));

/** Nothing of the machine's own may answer instead. */
const ISOLATED = {
  AWS_EC2_METADATA_DISABLED: "true",
  AWS_CONFIG_FILE: join(scratch, "config"),
  AWS_SHARED_CREDENTIALS_FILE: join(scratch, "credentials"),
};
await writeFile(
  ISOLATED.AWS_CONFIG_FILE,
  "[profile far]\nregion = eu-west-3\n[profile asking]\nregion = eu-west-3\n" +
    `credential_process = echo '{"Version":1,"AccessKeyId":"from-process","SecretAccessKey":"s"}'\n`,
);
await writeFile(
  ISOLATED.AWS_SHARED_CREDENTIALS_FILE,
  "[default]\naws_access_key_id = from-default\naws_secret_access_key = s\n" +
    "[far]\naws_access_key_id = from-profile\naws_secret_access_key = s\n",
);

/** The process's environment with these AWS_ variables and no others, while `work` runs. */
async function withEnvironment<T>(
  env: Readonly<Record<string, string>>,
  work: () => Promise<T>,
): Promise<T> {
  const before = Object.entries(process.env).filter(([name]) => name.startsWith("AWS_"));
  clearEnvironment();
  Object.assign(process.env, ISOLATED, env);
  try {
    return await work();
  } finally {
    clearEnvironment();
    Object.assign(process.env, Object.fromEntries(before));
  }
}

function clearEnvironment(): void {
  for (const name of Object.keys(process.env)) {
    if (name.startsWith("AWS_")) delete process.env[name];
  }
}

/** An STS, and an endpoint for containers, that give keys named after what they were asked. */
async function startCredentialServer(): Promise<
  { url: string; asked: string[] } & AsyncDisposable
> {
  const asked: string[] = [];
  const server = http.createServer((request, response) => {
    let form = "";
    request.on("data", (chunk: Buffer) => (form += chunk.toString()));
    request.on("end", () => {
      if (request.method === "GET") {
        asked.push("container");
        const Expiration = new Date(Date.now() + 3_600_000).toISOString();
        response.end(
          JSON.stringify({
            AccessKeyId: "from-container",
            SecretAccessKey: "s",
            Token: "t",
            Expiration,
          }),
        );
        return;
      }
      const words = new URLSearchParams(form);
      const action = words.get("Action") ?? "";
      asked.push(`${action} ${words.get("RoleArn")} ${words.get("RoleSessionName")}`);
      const expires = new Date(Date.now() + 3_600_000).toISOString();
      response.end(
        `<${action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><${action}Result><Credentials>` +
          `<AccessKeyId>from-${action}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>` +
          `<SessionToken>token-of-role</SessionToken><Expiration>${expires}</Expiration></Credentials>` +
          `<AssumedRoleUser><AssumedRoleId>i</AssumedRoleId><Arn>arn:aws:sts::1:assumed-role/r/s</Arn>` +
          `</AssumedRoleUser></${action}Result></${action}Response>`,
      );
    });
  });
  const port = await listen(server);
  return {
    url: `http://127.0.0.1:${port}`,
    asked,
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
    },
  };
}

interface Signed {
  readonly keyId: string;
  readonly region: string;
  readonly token: string | undefined;
}

/** Who signed a put, and for which region, with these settings and variables. */
async function signedBy(
  settings: Partial<S3Config>,
  env: Readonly<Record<string, string>> = {},
): Promise<Signed> {
  await using server = await S3Emulation.start();
  const { accessKeyId: _, secretAccessKey: __, endpoint: ___, ...bare } = s3Config(server);
  const isCustom = settings.endpoint !== undefined;
  const config = { ...bare, ...settings, ...(isCustom ? { endpoint: server.endpoint } : {}) };
  return await withEnvironment({ AWS_ENDPOINT_URL_S3: server.endpoint, ...env }, async () => {
    const storage = await openStorage(config, {
      signal,
      requestTimeoutMs: 5000,
      uploadConcurrency: 1,
      retryPolicy: { attempts: 1, baseMs: 1, capMs: 1, totalMs: 1 },
    });
    await storage.put("a", text("x"), { signal });
    const [request] = server.requests;
    assert.ok(request !== undefined);
    const { authorization = "", "x-amz-security-token": token } = request.headers;
    const [, keyId = "", region = ""] =
      /Credential=([^/]+)\/\d+\/([^/]+)\//.exec(authorization) ?? [];
    return { keyId, region, token: typeof token === "string" ? token : undefined };
  });
}

const ENV_KEYS = { AWS_ACCESS_KEY_ID: "from-env", AWS_SECRET_ACCESS_KEY: "s" };
const STATIC = { accessKeyId: "from-settings", secretAccessKey: "s" };

const sources: readonly [string, Partial<S3Config>, Record<string, string>, Partial<Signed>][] = [
  ["settings", STATIC, ENV_KEYS, { keyId: "from-settings" }],
  ["a session token", { ...STATIC, sessionToken: "t" }, {}, { keyId: "from-settings", token: "t" }],
  ["the environment", {}, ENV_KEYS, { keyId: "from-env" }],
  ["the default profile", {}, {}, { keyId: "from-default", region: "us-east-1" }],
  ["a named profile", { profile: "far" }, {}, { keyId: "from-profile", region: "eu-west-3" }],
  ["a profile's process", { profile: "asking" }, {}, { keyId: "from-process" }],
  ["a region of the settings", { ...STATIC, region: "eu-north-1" }, {}, { region: "eu-north-1" }],
  ["a region of the environment", STATIC, { AWS_REGION: "eu-west-1" }, { region: "eu-west-1" }],
  ["no region", STATIC, {}, { region: "us-east-1" }],
  [
    "a custom endpoint",
    { ...STATIC, endpoint: "custom" },
    { AWS_REGION: "eu-west-1" },
    { region: "us-east-1" },
  ],
];
for (const [name, settings, env, expected] of sources) {
  test(`requests are signed as ${name} says`, async () => {
    const signed = await signedBy(settings, env);
    assert.deepEqual({ ...signed, ...expected }, signed);
  });
}

test("a role is assumed with the credentials at hand, once", async () => {
  await using sts = await startCredentialServer();
  const role = { roleArn: "arn:aws:iam::1:role/backup", roleSessionName: "night" };
  const signed = await signedBy({ ...STATIC, ...role }, { AWS_ENDPOINT_URL_STS: sts.url });
  assert.equal(signed.keyId, "from-AssumeRole");
  assert.equal(signed.token, "token-of-role");
  assert.deepEqual(sts.asked, ["AssumeRole arn:aws:iam::1:role/backup night"]);
});

test("a role of a token file is not assumed twice", async () => {
  await using sts = await startCredentialServer();
  const token = join(scratch, "token");
  await writeFile(token, "jwt");
  const roleArn = "arn:aws:iam::1:role/pod";
  const env = {
    AWS_ENDPOINT_URL_STS: sts.url,
    AWS_WEB_IDENTITY_TOKEN_FILE: token,
    AWS_ROLE_ARN: roleArn,
    AWS_ROLE_SESSION_NAME: "pod",
  };
  await rm(ISOLATED.AWS_SHARED_CREDENTIALS_FILE, { force: true });
  const signed = await signedBy(
    { roleArn },
    { ...env, AWS_SHARED_CREDENTIALS_FILE: "/nonexistent" },
  );
  assert.equal(signed.keyId, "from-AssumeRoleWithWebIdentity");
  assert.deepEqual(sts.asked, [`AssumeRoleWithWebIdentity ${roleArn} pod`]);
});

test("the credentials of a container are used", async () => {
  await using server = await startCredentialServer();
  const env = {
    AWS_CONTAINER_CREDENTIALS_FULL_URI: `${server.url}/v2`,
    AWS_SHARED_CREDENTIALS_FILE: "/nonexistent",
  };
  assert.equal((await signedBy({}, env)).keyId, "from-container");
});

test("no credentials anywhere is a refusal with a hint", async () => {
  await assert.rejects(signedBy({}, { AWS_SHARED_CREDENTIALS_FILE: "/nonexistent" }), {
    name: "StorageAccessError",
    message:
      /^cannot put a in s3:\/\/emulated: CredentialsProviderError: Could not load credentials/,
    hint: /AWS_ACCESS_KEY_ID/,
  });
});

test("a source of credentials that hangs ends in time", async () => {
  await using proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: 1 });
  proxy.fault = { isSilent: true };
  const call = withEnvironment(
    {
      AWS_CONTAINER_CREDENTIALS_FULL_URI: `http://127.0.0.1:${proxy.port}/v2`,
      AWS_SHARED_CREDENTIALS_FILE: "/nonexistent",
    },
    async () => {
      const {
        accessKeyId: _,
        secretAccessKey: __,
        ...config
      } = s3Config({
        endpoint: "http://127.0.0.1:1",
        bucket: "b",
        accessKeyId: "",
        secretAccessKey: "",
      });
      const options = { signal, requestTimeoutMs: 300, callTimeoutMs: 900, uploadConcurrency: 1 };
      const storage = await openStorage(config, options);
      await storage.stat("a", { signal });
    },
  );
  await assert.rejects(call, { name: "DeadlineError" });
});

test("a CA file that can't be read is named", async () => {
  const config = s3Config(
    { endpoint: "https://127.0.0.1:1", bucket: "b", accessKeyId: "a", secretAccessKey: "s" },
    { caFile: "/nonexistent/ca.pem" },
  );
  await assert.rejects(
    openStorage(config, { signal, requestTimeoutMs: 1000, uploadConcurrency: 1 }),
    {
      name: "LocalFileError",
      message: /^cannot read the certificates in \/nonexistent\/ca\.pem: no such file/,
    },
  );
});

test("a CA file that holds something else is named", async () => {
  const caFile = join(scratch, "other.pem");
  const target = { endpoint: "https://127.0.0.1:1", bucket: "b", accessKeyId: "a" };
  const config = s3Config({ ...target, secretAccessKey: "s" }, { caFile });
  const options = { signal, requestTimeoutMs: 1000, uploadConcurrency: 1 };
  const damaged = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
  for (const [content, what] of [
    ["", "holds no certificate"],
    ["-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n", "holds no certificate"],
    [damaged, "holds a damaged certificate"],
  ] as const) {
    await writeFile(caFile, content);
    const message = `${caFile} ${what} in PEM`;
    await assert.rejects(openStorage(config, options), { name: "ConfigError", message });
  }
});

test("a port without TLS is said, and not tried again", async () => {
  await using server = await S3Emulation.start();
  const endpoint = server.endpoint.replace("http:", "https:");
  const options = { signal, requestTimeoutMs: 5000, uploadConcurrency: 1 };
  await using storage = await openStorage({ ...s3Config(server), endpoint }, options);
  await assert.rejects(storage.stat("a", { signal }), {
    name: "StorageError",
    isRetryable: false,
    hint: /does not speak TLS/,
  });
});

test("a certificate that is not trusted is said, and not tried again", async () => {
  const made = await makeCertificates(scratch);
  if (made === undefined) return;
  const { key, certificate: cert } = made;
  const server = https.createServer({ key, cert }, (_, response) => {
    response.writeHead(404);
    response.end(errorDocument("NoSuchKey"));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  assert.ok(address !== null && typeof address !== "string");
  const target = {
    endpoint: `https://127.0.0.1:${address.port}`,
    bucket: "b",
    accessKeyId: "a",
    secretAccessKey: "s",
  };
  const options = { signal, requestTimeoutMs: 5000, uploadConcurrency: 1 };
  const storage = await openStorage(s3Config(target), options);
  await assert.rejects(storage.put("a", text("x"), { signal }), {
    name: "StorageError",
    isRetryable: false,
    hint: /S3_CA_CERT_FILE/,
  });
  const trusting = await openStorage(s3Config(target, { caFile: made.authorityFile }), options);
  await assert.rejects(trusting.stat("a", { signal }), { name: "ObjectNotFoundError" });
  const renamed = { ...target, endpoint: `https://localhost:${address.port}` };
  const misled = await openStorage(s3Config(renamed, { caFile: made.authorityFile }), options);
  await assert.rejects(misled.stat("a", { signal }), {
    isRetryable: false,
    hint: /^The certificate is for another name/,
  });
  server.close();
  server.closeAllConnections();
});
