import { once } from "node:events";
import type { Server } from "node:net";

/** Listens on a free port of 127.0.0.1, and answers with the port. */
export async function listen(server: Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return portOf(server);
}

/** The port of a server that listens. */
export function portOf(server: Server): number {
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the server has no port");
  return address.port;
}

/** Ends a server of HTTP and all its connections. */
export async function closeHttp(server: Server & { closeAllConnections(): void }): Promise<void> {
  const closed = once(server, "close");
  server.close();
  server.closeAllConnections();
  await closed;
}
