import { FaultProxy } from "./fault-proxy.ts";
import { S3Emulation, errorDocument } from "./s3-emulation.ts";
import type { TokenAnswer, TokenRequest } from "./token-server.ts";

const ROLE = "arn:aws:iam::1:role/backup";

/** One of AWS, as somebody gives it. */
export interface AwsKey {
  readonly id: string;
  readonly endsAt: Date;
}

/** Gives keys that end soon, each with its end. */
export class AwsKeyGiver {
  readonly #lifeMs: number;
  readonly given: AwsKey[] = [];

  constructor(lifeMs: number) {
    this.#lifeMs = lifeMs;
  }

  give(): AwsKey {
    const key = { id: `KEY${this.given.length}`, endsAt: new Date(Date.now() + this.#lifeMs) };
    this.given.push(key);
    return key;
  }

  /** Whether none of the keys is alive then. */
  areEnded(atMs: number): boolean {
    return this.given.every(({ endsAt }) => endsAt.getTime() <= atMs);
  }

  /** Whether the key was alive then. */
  accepts(id: string, atMs: number): boolean {
    return this.given.some((key) => key.id === id && key.endsAt.getTime() > atMs);
  }
}

function keyJson({ id, endsAt }: AwsKey): TokenAnswer {
  const body = {
    Code: "Success",
    AccessKeyId: id,
    SecretAccessKey: "s",
    Token: `token of ${id}`,
    Expiration: endsAt.toISOString(),
  };
  return { status: 200, body };
}

function stsAnswer({ id, endsAt }: AwsKey): TokenAnswer {
  const action = "AssumeRoleWithWebIdentity";
  const body =
    `<${action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><${action}Result>` +
    `<Credentials><AccessKeyId>${id}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>` +
    `<SessionToken>token of ${id}</SessionToken><Expiration>${endsAt.toISOString()}</Expiration>` +
    `</Credentials></${action}Result></${action}Response>`;
  return { status: 200, body };
}

/** An emulated bucket that takes only requests whose key `accepts` as of when they were signed. */
export class GuardedBucket implements AsyncDisposable {
  /** Ids of the keys of requests that were refused. */
  readonly refused: string[] = [];
  readonly bucket: S3Emulation;
  readonly #proxy: FaultProxy;

  private constructor(bucket: S3Emulation, proxy: FaultProxy) {
    this.bucket = bucket;
    this.#proxy = proxy;
  }

  static async start(accepts: (id: string, signedAtMs: number) => boolean): Promise<GuardedBucket> {
    const bucket = await S3Emulation.start();
    const proxy = await FaultProxy.start(bucket.endpoint);
    const guarded = new GuardedBucket(bucket, proxy);
    proxy.rule = ({ headers }) => {
      const [, id = ""] = /Credential=([^/]+)\//.exec(headers.authorization ?? "") ?? [];
      if (accepts(id, signedAtMs(headers["x-amz-date"]))) return undefined;
      guarded.refused.push(id);
      const body = errorDocument("ExpiredToken", "The provided token has expired.");
      return { answer: { status: 400, body } };
    };
    return guarded;
  }

  get endpoint(): string {
    return this.#proxy.endpoint;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#proxy[Symbol.asyncDispose]();
    await this.bucket[Symbol.asyncDispose]();
  }
}

/** Reads "20261121T160104Z". */
function signedAtMs(date: string | string[] | undefined): number {
  const parts = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(String(date)) ?? [];
  const [year = 0, month = 0, day, hour, minute, second] = parts.slice(1).map(Number);
  return Date.UTC(year, month - 1, day, hour, minute, second);
}

/** Who gives keys of AWS, and how a program is led to it. */
export interface AwsKeySource {
  readonly name: string;
  readonly answer: (request: TokenRequest, giver: AwsKeyGiver) => TokenAnswer;
  /** `tokenFile` has the pod's token, "the pod's". */
  readonly environment: (origin: string, tokenFile: string) => Readonly<Record<string, string>>;
}

export const awsKeySources: readonly AwsKeySource[] = [
  {
    name: "an instance's role (EC2)",
    answer({ method, url, headers }, giver) {
      if (method === "PUT") return { status: 200, body: "session" };
      if (headers["x-aws-ec2-metadata-token"] !== "session") return { status: 401, body: "" };
      const isNamed = !url.pathname.endsWith("/");
      return isNamed ? keyJson(giver.give()) : { status: 200, body: "backup" };
    },
    environment: (origin) => ({ AWS_EC2_METADATA_SERVICE_ENDPOINT: origin }),
  },
  {
    name: "a container's role (ECS)",
    answer: ({ headers }, giver) =>
      headers.authorization === "the task's" ? keyJson(giver.give()) : { status: 401, body: {} },
    environment: (origin) => ({
      AWS_CONTAINER_CREDENTIALS_FULL_URI: `${origin}/v2`,
      AWS_CONTAINER_AUTHORIZATION_TOKEN: "the task's",
    }),
  },
  {
    name: "a pod's role (IRSA)",
    answer({ body }, giver) {
      const isTrue = new URLSearchParams(body).get("WebIdentityToken") === "the pod's";
      return isTrue ? stsAnswer(giver.give()) : { status: 403, body: "<Error/>" };
    },
    environment: (origin, tokenFile) => ({
      AWS_ENDPOINT_URL_STS: origin,
      AWS_REGION: "us-east-1",
      AWS_WEB_IDENTITY_TOKEN_FILE: tokenFile,
      AWS_ROLE_ARN: ROLE,
    }),
  },
];
