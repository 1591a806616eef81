/**
 * A network path of some length, as a process of its own: relays TCP from a free port of 127.0.0.1
 * to another one, and whatever comes back arrives later. Words: target port, delay in ms. Prints
 * its port.
 */
import { createServer, connect, type Socket } from "node:net";

const [targetPort = 0, delayMs = 0] = process.argv.slice(2).map(Number);

const server = createServer((client) => {
  const target = connect(targetPort, "127.0.0.1");
  for (const socket of [client, target]) socket.setNoDelay(true).on("error", () => {});
  client.pipe(target);
  relayLater(target, client);
  client.on("close", () => target.destroy());
});

/** Late, but as fast as it came: the delay is the path's length, not its width. */
function relayLater(from: Socket, to: Socket): void {
  from.on("data", (chunk: Buffer) => setTimeout(() => to.write(chunk), delayMs));
  from.on("close", () => setTimeout(() => to.end(), delayMs));
}

server.listen(0, "127.0.0.1", () => {
  const address = server.address();
  if (address !== null && typeof address === "object") console.log(address.port);
});
