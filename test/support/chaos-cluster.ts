/** A cluster, its clients and its repository, and what may happen to them. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { chmod, cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parseTimelineHistory } from "../../src/postgres/timeline-history.ts";
import { formatHistoryName } from "../../src/postgres/wal-file.ts";
import { writeRows } from "./chaos-client.ts";
import type { Path, Row } from "./chaos-line.ts";
import { ChaosNode, kill, waiting } from "./chaos-node.ts";
import { type Receiver, startReceiver } from "./chaos-receiver.ts";
import type { ChaosStore } from "./chaos-store.ts";
import { makeDataDirectory } from "./data-directory.ts";
import { clientProgram, freePort, type Major, serverEnvironment } from "./postgres-programs.ts";
import { chownTree, serverUser } from "./server-user.ts";
import { pause, until } from "./until.ts";

/** What a standby says whose WAL goes on where the primary's line left. */
const OTHER_LINE = new RegExp(
  [
    "new timeline \\d+ forked off current database system timeline",
    "requested timeline \\d+ is not a child",
    "highest timeline \\d+ of the primary is behind",
  ].join("|"),
);

export interface ClusterParts {
  readonly major: Major;
  readonly store: ChaosStore;
  readonly root: string;
  readonly nodeCount: number;
  readonly archiveMode: "on" | "always";
  readonly isSynchronous: boolean;
  readonly hasReceiver: boolean;
  readonly settings?: Readonly<Record<string, string>>;
  /** What happens, for a failure's message. */
  readonly say: (text: string) => void;
}

export class ChaosCluster implements AsyncDisposable {
  readonly nodes: ChaosNode[] = [];
  readonly rows: Row[] = [];
  readonly store: ChaosStore;
  readonly parts: ClusterParts;
  /** Whose commits count. */
  primary: ChaosNode;
  isSynchronous: boolean;
  #receiver: Receiver | undefined;
  readonly #receiverLogs: (() => string)[] = [];
  #epochs: { readonly epoch: number; readonly timeline: number }[] = [{ epoch: 1, timeline: 1 }];

  private constructor(parts: ClusterParts, nodes: ChaosNode[], primary: ChaosNode) {
    this.parts = parts;
    this.store = parts.store;
    this.nodes = nodes;
    this.primary = primary;
    this.isSynchronous = parts.isSynchronous;
  }

  static async make(parts: ClusterParts): Promise<ChaosCluster> {
    const { major, root, store, archiveMode } = parts;
    const nodes: ChaosNode[] = [];
    for (let index = 0; index < parts.nodeCount; index += 1) {
      const name = "abcd"[index] ?? "z";
      const settings = {
        ...store.settings,
        WALNUT_RECEIVE_PARTIAL_INTERVAL: "500ms",
        WALNUT_WAL_TIMEOUT: "10s",
        WALNUT_ARCHIVE_CHECK_TIMEOUT: "20s",
        WALNUT_STOP_BACKUP_TIMEOUT: "20s",
        WALG_DELTA_MAX_STEPS: "2",
        WALNUT_RETAIN_FULLS: "2",
        ...parts.settings,
      };
      const directory = join(root, name);
      const port = await freePort();
      nodes.push(await ChaosNode.make({ name, directory, major, port, settings, archiveMode }));
    }
    const [first] = nodes;
    assert.ok(first !== undefined);
    const place = { root: first.directory, dataDirectory: first.dataDirectory, user: serverUser() };
    makeDataDirectory({ major, segmentMiB: 1 }, place);
    first.path = [{ epoch: 1, timeline: 1, endLsn: undefined }];
    await first.configure({ wal_keep_size: "256MB", wal_sender_timeout: "6s" });
    const cluster = new ChaosCluster(parts, nodes, first);
    assert.equal(await first.start({ role: "primary" }), "promoted", first.log());
    await first.server.query(
      "CREATE TABLE counted (n bigint PRIMARY KEY); CREATE TABLE filler (t text)",
    );
    await first.mustRun("backup-push", first.dataDirectory);
    await first.stop("fast");
    for (const node of nodes.slice(1)) {
      await cp(first.dataDirectory, node.dataDirectory, { recursive: true });
    }
    if (cluster.isSynchronous) await cluster.writeSynchronousNames(first);
    await first.start({ role: "primary" });
    for (const node of nodes.slice(1)) await cluster.follow(node);
    await cluster.receive();
    return cluster;
  }

  /** What all servers and receivers have said. */
  logs(): string[] {
    const servers = this.nodes.map((node) => `=== ${node.name}\n${node.log()}`);
    return [...servers, ...this.#receiverLogs.map((log) => `=== wal-receive\n${log()}`)];
  }

  get standbys(): ChaosNode[] {
    return this.nodes.filter((node) => node.role === "standby" && node !== this.primary);
  }

  get down(): ChaosNode[] {
    return this.nodes.filter((node) => node.role === "down" && node !== this.primary);
  }

  // --- clients

  /** Writes rows until so many commits returned, one fails or takes too long. */
  async write(node: ChaosNode, count: number): Promise<void> {
    await writeRows(node, { count, rows: this.rows, say: this.parts.say });
  }

  async switchWal(): Promise<void> {
    await this.primary.server.switchWal();
  }

  async writeSynchronousNames(node: ChaosNode): Promise<void> {
    const names = this.isSynchronous ? "walnut" : "";
    await node.configure({ synchronous_standby_names: names });
    // What backends wait for is noted by the checkpointer, before it makes a checkpoint.
    if (node.role !== "down") {
      await node.server.waitFor(`SELECT current_setting('synchronous_standby_names') = '${names}'`);
      await node.server.query("CHECKPOINT");
      await node.server.query("CHECKPOINT");
    }
  }

  // --- wal-receive

  /** Starts it anew at the primary. */
  async receive(): Promise<void> {
    await this.endReceiver();
    if (!this.parts.hasReceiver && !this.isSynchronous) return;
    const { root, store } = this.parts;
    const settings = { ...store.settings, PGPORT: String(this.primary.port) };
    const words = this.isSynchronous ? ["--synchronous"] : [];
    this.#receiver = await startReceiver(root, { settings, words });
    this.#receiverLogs.push(this.#receiver.output);
  }

  async endReceiver(): Promise<void> {
    await this.#receiver?.end();
    this.#receiver = undefined;
  }

  // --- nodes

  /** Starts a node as a standby of the primary. */
  async follow(node: ChaosNode, settings: Readonly<Record<string, string>> = {}): Promise<boolean> {
    node.path = this.primary.path;
    const outcome = await node.start({
      role: "standby",
      settings: { primary_conninfo: this.conninfo(this.primary), ...settings },
    });
    return outcome === "consistent";
  }

  conninfo({ port }: ChaosNode): string {
    return `host=127.0.0.1 port=${port} user=postgres`;
  }

  /** Makes a standby the primary; the old one is whatever it is. */
  async promote(node: ChaosNode): Promise<boolean> {
    try {
      await node.server.query("SELECT pg_promote(true, 30)");
      await node.server.waitFor("SELECT NOT pg_is_in_recovery()", { timeoutMs: 30_000 });
    } catch (error) {
      this.parts.say(`promotion of ${node.name} failed: ${String(error).slice(0, 200)}`);
      return false;
    }
    await this.becamePrimary(node, this.primary.path);
    return true;
  }

  /** Notes what the timeline of a new primary consists of; `likely` is what it followed. */
  async becamePrimary(node: ChaosNode, likely: Path): Promise<void> {
    const path = await this.pathOf(node, likely);
    const timeline = path.at(-1)?.timeline ?? 0;
    const epoch = this.#epochs.length + 1;
    this.#epochs.push({ epoch, timeline });
    node.path = [...path.slice(0, -1), { epoch, timeline, endLsn: undefined }];
    node.role = "primary";
    node.wasStandby = false;
    this.primary = node;
    const text = node.path.map((one) => `${one.timeline}#${one.epoch}..${hex(one.endLsn)}`);
    this.parts.say(`${node.name} is the primary of ${text.join(" ")}`);
    if (this.isSynchronous) await this.writeSynchronousNames(node);
  }

  /** By the history file of the server's timeline; the last stretch has no epoch yet. */
  async pathOf(node: ChaosNode, likely: Path): Promise<Path> {
    const name = await node.server.value("SELECT pg_walfile_name(pg_current_wal_insert_lsn())");
    const timeline = Number.parseInt(name.slice(0, 8), 16);
    if (timeline === 1) return likely;
    const file = join(node.dataDirectory, "pg_wal", formatHistoryName(timeline));
    const history = parseTimelineHistory(readFileSync(file, "utf8"), timeline);
    const ancestors = history.ancestors.map(({ timeline, endLsn }) => {
      const known = likely.find((one) => one.timeline === timeline);
      const other = this.#epochs.findLast((one) => one.timeline === timeline);
      return { epoch: known?.epoch ?? other?.epoch ?? -1, timeline, endLsn };
    });
    return [...ancestors, { epoch: -1, timeline, endLsn: undefined }];
  }

  /** Makes a standby of the primary of a stopped node, whatever it wrote; gives how. */
  async rejoin(node: ChaosNode, wantsRewind: boolean): Promise<string> {
    const isRewound = wantsRewind && (await this.#rewind(node));
    if (!isRewound) {
      await rm(node.dataDirectory, { recursive: true, force: true });
      await node.mustRun("backup-fetch", node.dataDirectory, "LATEST");
    }
    const isThere = await this.follow(node);
    assert.ok(
      isThere,
      `${node.name} (${isRewound ? "rewound" : "cloned"}): ${node.log().slice(-6000)}`,
    );
    return isRewound ? "rewound" : "cloned";
  }

  /** Puts a backup in the place of a stopped node's data. */
  async replace(node: ChaosNode, backup: string): Promise<void> {
    await rm(node.dataDirectory, { recursive: true, force: true });
    await node.mustRun("backup-fetch", node.dataDirectory, backup);
  }

  /**
   * Has a standby, or what may be one, get to the state of the primary and stream; one that is on
   * another line is made anew.
   */
  async catchUp(node: ChaosNode, wantsRewind: boolean): Promise<void> {
    const { primary } = this;
    if (node === primary) return;
    const end = await primary.server.value("SELECT pg_current_wal_insert_lsn()");
    if (node.role === "down") {
      if (!node.wasStandby || !(await this.follow(node)) || !(await this.#reaches(node, end))) {
        await node.stop("fast");
        this.parts.say(`${node.name} is ${await this.rejoin(node, wantsRewind)}`);
      }
    } else if (!(await this.#reaches(node, end))) {
      await node.stop("fast");
      this.parts.say(`${node.name} is ${await this.rejoin(node, wantsRewind)}`);
    }
    assert.ok(await this.#reaches(node, end), `${node.name}: ${node.log().slice(-8000)}`);
    const count = "SELECT count(*) FROM counted";
    assert.equal(await node.server.value(count), await primary.server.value(count));
  }

  /** False once it has said that it can't, because it has WAL of another line. */
  async #reaches(node: ChaosNode, end: string): Promise<boolean> {
    const from = node.server.log().length;
    const sql = `SELECT pg_last_wal_replay_lsn() >= '${end}' AND status = 'streaming'
                 FROM pg_stat_wal_receiver`;
    return await until(
      `${node.name} streams and has ${end}`,
      async () => {
        const value = await node.server.value(sql).catch(() => "gone");
        if (value === "true") return "yes";
        if (node.server.log().slice(from).match(OTHER_LINE)) return "no";
        return value === "gone" && (await this.#isGone(node)) ? "no" : false;
      },
      () => node.log().slice(-8000),
    ).then((answer) => answer === "yes");
  }

  async #isGone(node: ChaosNode): Promise<boolean> {
    return !(await node.server.value("SELECT 1").then(
      () => true,
      () => false,
    ));
  }

  async #rewind(node: ChaosNode): Promise<boolean> {
    const { major } = this.parts;
    const program = clientProgram(major, "pg_rewind");
    if (program === undefined || !program.includes(`/${major}/`)) return false;
    if (!existsSync(join(dirname(program), "postgres"))) return false;
    const { primary } = this;
    await primary.server.query("CHECKPOINT");
    // It wants a clean end, and makes it in a way that archives nothing.
    const restored = await node.run(["wal-restore", node.dataDirectory, primary.dataDirectory]);
    if (restored.code !== 0) this.parts.say(`wal-restore: ${restored.stderr.slice(0, 300)}`);
    const source = `${this.conninfo(primary)} dbname=postgres`;
    const words = ["--target-pgdata", node.dataDirectory, "--source-server", source, "--no-sync"];
    const env = serverEnvironment(node.directory, {});
    const user = serverUser();
    const done = spawnSync(program, words, { ...user, cwd: node.directory, env, encoding: "utf8" });
    if (done.status !== 0) this.parts.say(`pg_rewind: ${done.stderr.slice(-600)}`);
    return done.status === 0;
  }

  /** Wakes the archiver, which pauses after failures, until it is done. */
  async archiverDone(node: ChaosNode): Promise<void> {
    await until(
      `${node.name} has archived all`,
      async () => {
        if (waiting(node).length === 0) return true;
        await node.configure({ log_min_messages: "warning" });
        await pause(300);
        return false;
      },
      () => `${waiting(node).join(" ")} ${node.log().slice(-5000)}`,
    );
  }

  /** Something of walnut that runs on a node, or the receiver. */
  victims(): { readonly what: string; kill(): void }[] {
    const found = this.nodes.flatMap((node) =>
      node
        .walnutPids()
        .map(({ pid, what }) => ({ what: `${what} of ${node.name}`, kill: () => kill(pid) })),
    );
    const receiver = this.#receiver?.pid;
    if (receiver !== undefined) found.push({ what: "wal-receive", kill: () => kill(receiver) });
    return found;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.endReceiver();
    for (const node of this.nodes) await node[Symbol.asyncDispose]();
  }
}

export async function chaosRoot(): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), "walnut-chaos-"));
  await chmod(root, 0o755);
  await chownTree(root, serverUser());
  return root;
}

function hex(lsn: bigint | undefined): string {
  return lsn === undefined ? "" : lsn.toString(16);
}
