import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

/** What a service tells its manager, as systemd would hear it. */
export interface Notices extends AsyncDisposable {
  /** The next datagram. */
  next(): Promise<string>;
  /** The listener's reading of CLOCK_MONOTONIC. */
  monotonicUs(): Promise<string>;
}

/** Neither runtime has datagram sockets of this family. */
const LISTENER = `
import json, select, socket, sys, time
address = sys.argv[1]
listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
listener.bind("\\0" + address[1:] if address[0] == "@" else address)
print(json.dumps("listening"), flush=True)
while True:
    readable, _, _ = select.select([listener, sys.stdin], [], [])
    if listener in readable:
        print(json.dumps(listener.recv(4096).decode()), flush=True)
    elif sys.stdin.readline() == "":
        break
    else:
        print(json.dumps("clock %d" % (time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)), flush=True)
`;

/** Listens at a path, or at "@" and an abstract name. */
export async function listenForNotices(address: string): Promise<Notices> {
  const child = spawn("python3", ["-c", LISTENER, address], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const clocks: string[] = [];
  const notices: string[] = [];
  const read = async (): Promise<void> => {
    const line = await lines.next();
    if (line.done === true) throw new Error("the listener has ended");
    const text: unknown = JSON.parse(line.value);
    const [, clock] = /^clock (\d+)$/.exec(String(text)) ?? [];
    if (clock === undefined) notices.push(String(text));
    else clocks.push(clock);
  };
  const take = async (queue: string[]): Promise<string> => {
    while (queue.length === 0) await read();
    return queue.shift() ?? "";
  };
  await take(notices);
  return {
    next: () => take(notices),
    monotonicUs() {
      child.stdin.write("clock\n");
      return take(clocks);
    },
    async [Symbol.asyncDispose]() {
      const ended = once(child, "close");
      child.stdin.end();
      await ended;
    },
  };
}
