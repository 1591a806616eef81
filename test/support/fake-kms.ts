import { createHash, randomBytes } from "node:crypto";
import { type AwsKmsOptions, openAwsKms } from "../../src/crypto/aws-kms.ts";
import type { Crypter } from "../../src/crypto/crypter.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { TokenServer } from "./token-server.ts";
import type { TokenAnswer, TokenRequest } from "./token-server.ts";

/** What AWS makes of 32 bytes. */
const SEALED_BYTES = 184;

/** AWS's key service, with one key in memory; answers what `answer` says while it is there. */
export class FakeKms implements AsyncDisposable {
  readonly keyId = "11111111-2222-3333-4444-555555555555";
  /** "Encrypt" or "Decrypt", for each request. */
  readonly asked: string[] = [];
  answer: TokenAnswer | undefined;
  readonly #opened = new Map<string, string>();
  #server: TokenServer | undefined;

  static async start(): Promise<FakeKms> {
    const kms = new FakeKms();
    kms.#server = await TokenServer.start((request) => kms.#respond(request));
    return kms;
  }

  /** For AWS_ENDPOINT_URL_KMS. */
  get endpoint(): string {
    if (this.#server === undefined) throw new Error("not started");
    return this.#server.origin;
  }

  /** Encrypts with this key, in this process. */
  async openCrypter(options: AwsKmsOptions, endpoint = this.endpoint): Promise<Crypter> {
    // The SDK has no other way to be told, and looks while it is made.
    process.env["AWS_ENDPOINT_URL_KMS"] = endpoint;
    try {
      const keys = { accessKeyId: "any", secretAccessKey: "any" };
      const method = { kind: "aws-kms", keyId: this.keyId, region: "us-east-1", ...keys } as const;
      const crypter = await openAwsKms(method, options);
      // It looks when it is asked first.
      const empty = bytesSource(new Uint8Array()).open();
      await readAll(crypter.encrypt(empty, { name: "first", signal: options.signal }));
      return crypter;
    } finally {
      delete process.env["AWS_ENDPOINT_URL_KMS"];
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server?.[Symbol.asyncDispose]();
  }

  #respond({ headers, body }: TokenRequest): TokenAnswer {
    const operation = String(headers["x-amz-target"]).replace("TrentService.", "");
    this.asked.push(operation);
    if (this.answer !== undefined) return this.answer;
    const {
      Plaintext,
      CiphertextBlob,
      KeyId = this.keyId,
    }: Record<string, string | undefined> = JSON.parse(body);
    if (KeyId !== this.keyId) return refusal("NotFoundException");
    if (operation === "Encrypt" && Plaintext !== undefined) {
      const sealed = randomBytes(SEALED_BYTES).toString("base64");
      this.#opened.set(digest(sealed), Plaintext);
      return { status: 200, body: { KeyId, CiphertextBlob: sealed } };
    }
    const plain = this.#opened.get(digest(CiphertextBlob ?? ""));
    if (plain === undefined) return refusal("InvalidCiphertextException");
    return { status: 200, body: { KeyId, Plaintext: plain } };
  }
}

function refusal(type: string): TokenAnswer {
  return { status: 400, body: { __type: type, message: "told so" } };
}

function digest(sealed: string): string {
  return createHash("sha256").update(Buffer.from(sealed, "base64")).digest("hex");
}
