import { once } from "node:events";
import net from "node:net";

/** A TCP relay on 127.0.0.1 before a server there, as a router that forgets who says nothing. */
export class ForgetfulRelay implements AsyncDisposable {
  readonly #server: net.Server;
  readonly #clients = new Set<net.Socket>();
  #heard = Promise.withResolvers<void>();
  #changed = Promise.withResolvers<void>();

  private constructor(port: number) {
    this.#server = net.createServer((client) => this.#relay(client, port));
  }

  static async start(port: number): Promise<ForgetfulRelay> {
    const relay = new ForgetfulRelay(port);
    relay.#server.listen(0, "127.0.0.1");
    await once(relay.#server, "listening");
    return relay;
  }

  get port(): number {
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("the relay has no port");
    return address.port;
  }

  /** Resolves when there are so many connections or fewer. */
  async connectionsLeft(count: number): Promise<void> {
    while (this.#clients.size > count) await this.#changed.promise;
  }

  /** Resolves when a client has said something from now on: until then all would be forgotten. */
  async clientSpeaks(): Promise<void> {
    this.#heard = Promise.withResolvers();
    await this.#heard.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, "close");
    this.#server.close();
    for (const client of this.#clients) client.destroy();
    await closed;
  }

  #relay(client: net.Socket, port: number): void {
    const server = net.connect(port, "127.0.0.1");
    this.#clients.add(client);
    client.on("data", () => this.#heard.resolve());
    client.pipe(server).pipe(client);
    for (const socket of [client, server]) {
      socket.on("error", () => {});
      socket.on("close", () => {
        client.destroy();
        server.destroy();
        this.#clients.delete(client);
        this.#changed.resolve();
        this.#changed = Promise.withResolvers();
      });
    }
  }
}
