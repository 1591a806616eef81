import { GoogleAuth, gaxios } from "google-auth-library";
import { StorageError } from "../errors.ts";
import type { RestSender } from "./rest-sender.ts";
import { readText } from "./rest-sender.ts";
import type { TokenSource } from "./token-auth.ts";

export interface LibraryTokenOptions {
  readonly sender: RestSender;
  readonly scope: string;
}

/** Workload identity federation, impersonation and what else Google's own library knows. */
export function libraryTokens(
  credentials: object,
  { sender, scope }: LibraryTokenOptions,
): TokenSource {
  const transporter = new gaxios.Gaxios({
    fetchImplementation: (input, init) => sendFor(sender, input, init),
    retry: false,
  });
  const auth = new GoogleAuth({ credentials, scopes: [scope], clientOptions: { transporter } });
  return async () => {
    const client = await auth.getClient();
    const { token } = await client.getAccessToken();
    const { expiry_date: expiresAtMs } = client.credentials;
    if (typeof token !== "string") {
      throw new StorageError("Google's library gave no token", { isRetryable: true });
    }
    return { token, expiresAtMs: expiresAtMs ?? 0 };
  };
}

/** The library's requests by our own sender: no proxy of the environment, a deadline each. */
async function sendFor(
  sender: RestSender,
  input: string | URL | Request,
  init: RequestInit = {},
): Promise<Response> {
  const { method = "GET", body, signal } = init;
  if (method !== "GET" && method !== "POST") {
    throw new StorageError(`a request for a token has the method ${method}`, {
      isRetryable: false,
    });
  }
  const url = input instanceof URL ? input : new URL(typeof input === "string" ? input : input.url);
  const text = body === undefined || body === null ? undefined : await new Response(body).text();
  const response = await sender.send(
    {
      method,
      url,
      headers: Object.fromEntries(new Headers(init.headers)),
      ...(text === undefined ? {} : { body: Buffer.from(text) }),
    },
    { signal: signal ?? new AbortController().signal },
  );
  const { status, headers } = response;
  return new Response(await readText(response), { status, headers: { ...headers } });
}
