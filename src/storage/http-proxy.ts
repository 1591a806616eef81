import http from "node:http";
import https from "node:https";
import { BlockList, isIP } from "node:net";
import { once } from "node:events";
import { Duplex } from "node:stream";
import tls from "node:tls";
import { ConfigError, OperationError, StorageError, systemErrorCode } from "../errors.ts";
import { untilAborted } from "../io/abort.ts";
import type { Clock } from "../io/clock.ts";
import { isSystemError, systemErrorText } from "../io/system-error.ts";
import { Watchdog } from "../io/watchdog.ts";

/** As the environment has them. Absent: the way is direct. */
export interface ProxyConfig {
  /** HTTPS_PROXY: for stores that are reached by https. May hold a name and a password. */
  readonly https?: string;
  /** HTTP_PROXY: for those by http. */
  readonly http?: string;
  /** NO_PROXY: who is reached without; a list with commas. */
  readonly noProxy?: string;
}

/** Where a request goes. */
export interface ProxyTarget {
  /** "https:" */
  readonly protocol: string;
  /** An IPv6 address may stand in brackets. */
  readonly hostname: string;
  readonly port?: number | undefined;
}

export interface ProxyOptions {
  /** Silence of this length ends the making of a tunnel. */
  readonly timeoutMs: number;
  /** PEM; the system's unless given. */
  readonly certificates?: string | undefined;
  readonly maxSockets: number;
  readonly clock: Clock;
}

const HINT =
  "HTTPS_PROXY names the proxy for stores reached by https, HTTP_PROXY by http; NO_PROXY names " +
  "hosts that are reached without.";
const LOGIN_HINT = "The proxy wants a login: http://name:password@host:port, signs in it escaped.";
/** Those that give a machine its credentials are on the machine itself. */
const METADATA_HOSTS: readonly string[] = ["metadata.google.internal", "fd00:ec2::254"];
const DEFAULT_PORTS: ReadonlyMap<string, number> = new Map([
  ["http:", 80],
  ["https:", 443],
]);

/**
 * The proxy for a target, as Go's programs choose it; undefined where the way is direct, which it
 * always is to this machine. Throws ConfigError for an address that is none.
 *
 * @source golang.org/x/net/http/httpproxy
 */
export function findProxy(config: ProxyConfig, target: ProxyTarget): URL | undefined {
  const isSecure = target.protocol === "https:";
  const text = isSecure ? config.https : config.http;
  if (text === undefined || text === "" || isDirect(config.noProxy ?? "", target)) return undefined;
  const address = text.includes("://") ? text : `http://${text}`;
  const url = URL.canParse(address) ? new URL(address) : undefined;
  if (url !== undefined && DEFAULT_PORTS.has(url.protocol) && url.hostname !== "") return url;
  const name = isSecure ? "HTTPS_PROXY" : "HTTP_PROXY";
  const kind =
    url === undefined ? "no URL" : `of a kind that walnut does not know, ${url.protocol}//`;
  throw new ConfigError(`the proxy that ${name} names is ${kind}`, {
    hint: `It has the form http://host:port. ${HINT}`,
  });
}

function isDirect(noProxy: string, { protocol, hostname, port }: ProxyTarget): boolean {
  const host = bare(hostname).toLowerCase().replace(/\.$/, "");
  if (isOwnMachine(host) || METADATA_HOSTS.includes(host)) return true;
  const targetPort = port ?? DEFAULT_PORTS.get(protocol);
  return noProxy
    .split(",")
    .map((entry) => entry.trim().toLowerCase())
    .some((entry) => {
      if (entry === "*") return true;
      const [, name = entry, wanted] = /^(\[[^\]]*\]|[^:]*):(\d+)$/.exec(entry) ?? [];
      if (wanted !== undefined && Number(wanted) !== targetPort) return false;
      return isNamed(bare(name), host);
    });
}

function isOwnMachine(host: string): boolean {
  if (host === "localhost") return true;
  return ["127.0.0.0/8", "169.254.0.0/16", "::1"].some((range) => isWithin(range, host));
}

/** By one entry: an address, a range of addresses, or a name with all that ends in it. */
function isNamed(entry: string, host: string): boolean {
  if (entry === "") return false;
  if (isIP(entry.replace(/\/.*$/, "")) !== 0) return isWithin(entry, host);
  const name = entry.replace(/^\*\./, ".");
  return name.startsWith(".") ? host.endsWith(name) : host === name || host.endsWith(`.${name}`);
}

function isWithin(range: string, host: string): boolean {
  const family = isIP(host);
  const [address = "", bits] = range.split("/");
  if (family === 0 || isIP(address) !== family) return false;
  const length = bits === undefined ? (family === 4 ? 32 : 128) : Number(bits);
  if (!Number.isInteger(length) || length < 0 || length > (family === 4 ? 32 : 128)) return false;
  const list = new BlockList();
  const kind = family === 4 ? "ipv4" : "ipv6";
  list.addSubnet(address, length, kind);
  return list.check(host, kind);
}

function bare(hostname: string): string {
  return hostname.replace(/^\[|\]$/g, "");
}

/** One proxy, and the connections through it. */
export class HttpProxy {
  /** "http://proxy:3128", without what it is logged in with. */
  readonly name: string;
  /** For requests to the proxy itself. */
  readonly address: { readonly host: string; readonly port: number };
  readonly isSecure: boolean;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #options: ProxyOptions;
  readonly #tunnels: TunnelAgent;
  readonly #forwards: http.Agent;

  constructor(url: URL, options: ProxyOptions) {
    this.name = `${url.protocol}//${url.host}`;
    this.isSecure = url.protocol === "https:";
    const port = url.port === "" ? (DEFAULT_PORTS.get(url.protocol) ?? 80) : Number(url.port);
    this.address = { host: bare(url.hostname), port };
    this.#headers = loginHeader(url);
    this.#options = options;
    const common = { keepAlive: true, maxSockets: options.maxSockets };
    this.#tunnels = new TunnelAgent(this, { ...common, ...this.trust });
    this.#forwards = this.isSecure
      ? new https.Agent({ ...common, ...this.trust })
      : new http.Agent(common);
  }

  get trust(): { readonly ca?: string } {
    const { certificates } = this.#options;
    return certificates === undefined ? {} : { ca: certificates };
  }

  get timeoutMs(): number {
    return this.#options.timeoutMs;
  }

  get clock(): Clock {
    return this.#options.clock;
  }

  /** Begins a request: in a tunnel to an https target, else asking the proxy for the whole URL. */
  request(target: ProxyTarget, options: ForwardedRequest): http.ClientRequest {
    const { path, headers } = options;
    const host = authorityOf(target);
    if (target.protocol === "https:") {
      const { hostname, port = 443 } = target;
      return https.request({ ...options, host: bare(hostname), port, agent: this.#tunnels });
    }
    return this.ask({
      ...options,
      path: `http://${host}${path}`,
      headers: { host, ...headers },
      agent: this.#forwards,
    });
  }

  /** A request to the proxy itself. */
  ask(options: ProxyRequest): http.ClientRequest {
    const { request } = this.isSecure ? https : http;
    const headers = { ...options.headers, ...this.#headers };
    return request({ ...this.trust, ...options, ...this.address, headers });
  }

  /** Why the proxy does not do what it is asked. */
  refusal(status: number, text: string, target: ProxyTarget): StorageError {
    return new StorageError(`${this.#failed(target)}: ${`${status} ${text}`.trimEnd()}`, {
      isRetryable: status >= 500 || status === 429,
      hint: status === 407 ? LOGIN_HINT : HINT,
    });
  }

  /** The error of a request that may be the proxy's fault, naming it. */
  explain(error: unknown, target: ProxyTarget): unknown {
    const what = this.#failed(target);
    if (error instanceof StorageError && !error.message.startsWith(what)) {
      const { isRetryable, hint = HINT } = error;
      return new StorageError(`${what}: ${error.message}`, { isRetryable, hint, cause: error });
    }
    if (error instanceof OperationError) return error;
    const code = systemErrorCode(error) ?? "";
    // What TLS says is of the target.
    if (!isSystemError(error) && !/^(E[A-Z]+|HPE_[A-Z_]+|ERR_SOCKET_[A-Z_]+)$/.test(code)) {
      return error;
    }
    const details = { isRetryable: true, hint: HINT, cause: error };
    return new StorageError(`${what}: ${systemErrorText(error)}`, details);
  }

  destroy(): void {
    this.#tunnels.destroy();
    this.#forwards.destroy();
  }

  #failed(target: ProxyTarget): string {
    return `cannot reach ${authorityOf(target)} through the proxy ${this.name}`;
  }
}

/** What a request is, besides where it goes. */
export interface ForwardedRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** What a request to a proxy is, besides its login. */
interface ProxyRequest extends ForwardedRequest {
  readonly agent: http.Agent | false;
}

type Callback = (error: Error | null, stream: Duplex) => void;

/** Connections of TLS to a target in tunnels that a proxy makes (CONNECT); kept for more requests. */
class TunnelAgent extends https.Agent {
  readonly #proxy: HttpProxy;
  readonly #closed = new AbortController();

  constructor(proxy: HttpProxy, options: https.AgentOptions) {
    super(options);
    this.#proxy = proxy;
  }

  override createConnection({ host, port }: https.RequestOptions, callback?: Callback): undefined {
    void this.#deliver({ protocol: "https:", hostname: host ?? "", port: Number(port) }, callback);
    return undefined;
  }

  override destroy(): void {
    this.#closed.abort(new Error("the proxy is not needed any more"));
    super.destroy();
  }

  async #deliver(target: ProxyTarget, callback: Callback | undefined): Promise<void> {
    let stream: Duplex;
    try {
      stream = await this.#connect(target);
    } catch (error) {
      const cause = error instanceof Error ? error : new Error(String(error));
      callback?.(cause, new Duplex().destroy());
      return;
    }
    callback?.(null, stream);
  }

  async #connect(target: ProxyTarget): Promise<Duplex> {
    const { clock, timeoutMs, trust } = this.#proxy;
    const onTimeout = () =>
      new StorageError(`no connection within ${timeoutMs / 1000} s`, { isRetryable: true });
    using watchdog = new Watchdog({ signal: this.#closed.signal, timeoutMs, clock, onTimeout });
    const tunnel = await openTunnel(this.#proxy, target, watchdog);
    const host = bare(target.hostname);
    const secure = tls.connect({
      socket: tunnel,
      host,
      // An address is no name that a server could be asked for.
      servername: isIP(host) === 0 ? host : "",
      ...trust,
    });
    try {
      await untilAborted(once(secure, "secureConnect"), watchdog.signal);
      return secure;
    } catch (error) {
      secure.destroy();
      tunnel.destroy();
      throw error;
    }
  }
}

/** Asks the proxy for a connection to the target. */
async function openTunnel(
  proxy: HttpProxy,
  target: ProxyTarget,
  { signal }: { readonly signal: AbortSignal },
): Promise<Duplex> {
  const host = authorityOf(target, { isPortShown: true });
  const headers = { host, "user-agent": "walnut" };
  const asked = proxy.ask({ method: "CONNECT", path: host, headers, agent: false });
  const answered = new Promise<Duplex>((resolve, reject) => {
    asked.on("connect", ({ statusCode = 0, statusMessage = "" }, socket) => {
      if (statusCode >= 200 && statusCode < 300) return resolve(socket);
      socket.destroy();
      reject(proxy.refusal(statusCode, statusMessage, target));
    });
    // Stays for good: a connection that breaks later must not be an uncaught exception.
    asked.on("error", reject);
  });
  asked.end();
  try {
    return await untilAborted(answered, signal);
  } catch (error) {
    asked.destroy();
    throw error;
  }
}

function authorityOf(
  { protocol, hostname, port = DEFAULT_PORTS.get(protocol) ?? 80 }: ProxyTarget,
  { isPortShown = false } = {},
): string {
  const host = isIP(bare(hostname)) === 6 ? `[${bare(hostname)}]` : hostname;
  return isPortShown || port !== DEFAULT_PORTS.get(protocol) ? `${host}:${port}` : host;
}

function loginHeader({ username, password }: URL): Readonly<Record<string, string>> {
  if (username === "" && password === "") return {};
  const login = `${decoded(username)}:${decoded(password)}`;
  return { "proxy-authorization": `Basic ${Buffer.from(login).toString("base64")}` };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
