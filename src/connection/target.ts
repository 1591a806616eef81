/** How to reach PostgreSQL: libpq's names and meanings; what is absent has libpq's default. */
export interface ConnectionSettings {
  /** Name, address or directory of the socket; several, by commas, are tried in their order. */
  readonly host?: string;
  readonly port?: number;
  readonly user?: string;
  readonly password?: string;
  readonly passwordFile?: string;
  readonly database?: string;
  readonly applicationName: string;
  readonly sslMode?: string;
  readonly sslKeyFile?: string;
  readonly sslCertificateFile?: string;
  readonly sslRootCertificateFile?: string;
}

/**
 * "required" does not look at the certificate; the other two do, "verified" also at the name in it.
 */
export type TlsUse = "none" | "required" | "trusted" | "verified";

/** One way to connect, to be tried in its turn. */
export interface ConnectionTarget {
  /** Directory of a socket if it begins with "/". */
  readonly host: string;
  readonly port: number;
  readonly tls: TlsUse;
}

const DEFAULT_PORT = 5432;

/** Debian's directory, then the one that PostgreSQL has when it is built, then TCP. */
const DEFAULT_HOSTS = ["/var/run/postgresql", "/tmp", "localhost"] as const;

const TLS_BY_MODE: ReadonlyMap<string, readonly TlsUse[]> = new Map<string, readonly TlsUse[]>([
  ["disable", ["none"]],
  ["allow", ["none", "required"]],
  ["prefer", ["required", "none"]],
  ["require", ["required"]],
  ["verify-ca", ["trusted"]],
  ["verify-full", ["verified"]],
]);

export function isSocketDirectory(host: string): boolean {
  return host.startsWith("/");
}

/**
 * All ways to connect that these settings allow, best first: every host with every kind of
 * encryption of the sslmode ("prefer" unless set). A socket is never encrypted.
 *
 * `hasRootCertificate`: whether there is a file of trusted certificates; as in libpq, "require"
 * then means "verify-ca".
 */
export function connectionTargets(
  settings: ConnectionSettings,
  hasRootCertificate: boolean,
): ConnectionTarget[] {
  const port = settings.port ?? DEFAULT_PORT;
  const mode = settings.sslMode ?? "prefer";
  const kinds = TLS_BY_MODE.get(mode === "require" && hasRootCertificate ? "verify-ca" : mode);
  const given = settings.host?.split(",").filter((host) => host !== "") ?? [];
  const hosts: readonly string[] = given.length === 0 ? DEFAULT_HOSTS : given;
  return hosts.flatMap((host) => {
    const uses: readonly TlsUse[] = isSocketDirectory(host) ? ["none"] : (kinds ?? ["required"]);
    return uses.map((tls) => ({ host, port, tls }));
  });
}

/** For messages: "/tmp, port 5432" or "db1:5432". */
export function formatTarget({ host, port }: ConnectionTarget): string {
  return isSocketDirectory(host) ? `${host}, port ${port}` : `${host}:${port}`;
}

/** What a password file calls this host. */
export function passwordFileHost(host: string): string {
  return DEFAULT_HOSTS.some((usual) => usual === host) ? "localhost" : host;
}
