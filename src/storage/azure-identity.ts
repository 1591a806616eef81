import { AggregateAuthenticationError, DefaultAzureCredential } from "@azure/identity";
import { StorageError } from "../errors.ts";
import type { RestSender } from "./rest-sender.ts";
import { readText } from "./rest-sender.ts";
import type { TokenSource } from "./token-auth.ts";

type Options = NonNullable<ConstructorParameters<typeof DefaultAzureCredential>[0]>;
type HttpClient = NonNullable<Options["httpClient"]>;

/** What a token for the blob service is for. */
const SCOPE = "https://storage.azure.com/.default";

/**
 * Tokens from whatever the machine has: service principal, workload identity, managed identity, or
 * the command line's login. Loaded only where there is neither key nor SAS.
 */
export function azureTokens(sender: RestSender, authorityHost: string | undefined): TokenSource {
  const credential = new DefaultAzureCredential({
    httpClient: identityClient(sender),
    retryOptions: { maxRetries: 0 },
    // It asks the public cloud whether the authority is one of Microsoft's: whoever set it knows.
    disableInstanceDiscovery: true,
    ...(authorityHost === undefined ? {} : { authorityHost }),
  });
  return async ({ signal }) => {
    try {
      const answer = await credential.getToken(SCOPE, { abortSignal: signal });
      return { token: answer.token, expiresAtMs: answer.expiresOnTimestamp };
    } catch (error) {
      if (!(error instanceof AggregateAuthenticationError)) throw error;
      const reasons = error.errors.map((one: unknown) => reasonOf(one)).filter(isTelling);
      const told = reasons.length === 0 ? "" : ` (${reasons.join("; ")})`;
      const what = `neither a key nor a SAS is set, and no identity gave a token${told}`;
      throw new Error(what, { cause: error });
    }
  };
}

/** The beginning of what one source says: half a page of it is advice for programmers. */
function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const told = text
    .replaceAll(
      /To troubleshoot, visit \S+|- (Timestamp|Correlation ID|Trace ID): Not Available/g,
      "",
    )
    .replaceAll(/\s+/g, " ")
    .trim();
  return told.length <= LONGEST_REASON ? told : `${told.slice(0, LONGEST_REASON)}...`;
}

const LONGEST_REASON = 160;

/** Sources that are not there: a principal that nobody set, programs of developers. */
const ABSENT_SOURCES: readonly RegExp[] = [
  /^EnvironmentCredential is unavailable/,
  /^Visual Studio Code Authentication is not available/,
  /^Azure (Developer )?CLI could(n't| not) be found/,
  /^Error: Unable to execute PowerShell/,
];

function isTelling(reason: string): boolean {
  return !ABSENT_SOURCES.some((pattern) => pattern.test(reason));
}

/** Our own way to send requests, with a deadline in each phase and no proxy of the environment. */
function identityClient(sender: RestSender): HttpClient {
  return {
    async sendRequest(request) {
      const headers = Object.entries(request.headers.toJSON()).map(
        ([name, value]) => [name.toLowerCase(), value] as const,
      );
      const never = new AbortController().signal;
      const signal = request.abortSignal instanceof AbortSignal ? request.abortSignal : never;
      const { body } = request;
      if (typeof body !== "string" && body !== undefined && body !== null) {
        throw new StorageError("a request for a token has a body that is no text", {
          isRetryable: false,
        });
      }
      const response = await sender.send(
        {
          method: methodOf(request.method),
          url: new URL(request.url),
          headers: Object.fromEntries(headers),
          ...(typeof body === "string" ? { body: Buffer.from(body) } : {}),
        },
        { signal },
      );
      const answered = request.headers;
      for (const [name] of headers) answered.delete(name);
      for (const [name, value] of Object.entries(response.headers)) answered.set(name, value);
      return {
        request,
        status: response.status,
        headers: answered,
        bodyAsText: await readText(response),
      };
    },
  };
}

function methodOf(method: string): "GET" | "HEAD" | "PUT" | "POST" | "DELETE" {
  switch (method) {
    case "GET":
    case "HEAD":
    case "PUT":
    case "POST":
    case "DELETE":
      return method;
    default:
      throw new StorageError(`a request for a token has the method ${method}`, {
        isRetryable: false,
      });
  }
}
