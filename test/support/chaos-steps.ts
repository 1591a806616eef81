/** One round: random steps, then what has to be true. */
import assert from "node:assert/strict";
import type { ChaosCluster } from "./chaos-cluster.ts";
import type { ChaosNode } from "./chaos-node.ts";
import { backupBefore, restoreAndLook } from "./chaos-restore.ts";
import { pick, type Random } from "./random.ts";
import { pause } from "./until.ts";

interface Round {
  readonly random: Random;
  readonly say: (text: string) => void;
}

type Step = (cluster: ChaosCluster, round: Round) => Promise<void>;

/** Runs the steps of one round and its checks. */
export async function chaosSteps(cluster: ChaosCluster, round: Round): Promise<void> {
  const { random, say } = round;
  const count = 6 + Math.floor(random.next() * 8);
  for (let done = 0; done < count; done += 1) {
    const [name, step] = weighted(random);
    say(`-- ${name}`);
    await step(cluster, round);
  }
  await settle(cluster, round);
}

const STEPS: readonly (readonly [number, string, Step])[] = [
  [5, "write", writeSome],
  [2, "switch", async (cluster) => await cluster.switchWal()],
  [6, "kill while writing", killWhileWriting],
  [4, "failover", failOver],
  [2, "a stray primary", strayPrimary],
  [3, "rejoin", rejoinOne],
  [2, "backup", backUp],
  [1, "expire", expire],
  [2, "bad weather", badWeather],
  [1, "checkpoint", async (cluster) => void (await cluster.primary.server.query("CHECKPOINT"))],
  [2, "disaster", disaster],
  [1, "to before", pointInTime],
  [1, "switch the mode", switchMode],
  [2, "standby down", standbyDown],
  [1, "receiver", async (cluster) => await cluster.receive()],
  [
    1,
    "backfill",
    async (cluster) =>
      void (await cluster.primary.run(["backfill", cluster.primary.dataDirectory])),
  ],
];

function weighted(random: Random): readonly [string, Step] {
  const total = STEPS.reduce((sum, [weight]) => sum + weight, 0);
  let left = random.next() * total;
  for (const [weight, name, step] of STEPS) {
    left -= weight;
    if (left < 0) return [name, step];
  }
  throw new RangeError("no step");
}

async function killWhileWriting(cluster: ChaosCluster, { random, say }: Round): Promise<void> {
  const writing = cluster.write(cluster.primary, 20);
  const isOver = writing.then(() => true);
  for (let count = 1 + below(random, 4); count > 0; count -= 1) {
    await Promise.race([pause(random.next() * 500), isOver]);
    const victims = cluster.victims();
    if (victims.length === 0) continue;
    const victim = victims[below(random, victims.length)];
    say(`killed ${victim?.what}`);
    victim?.kill();
    if (victim?.what === "wal-receive") await cluster.receive();
  }
  if (random.next() < 0.5) return await writing;
  const how = pick(random, ["kill", "immediate", "fast"] as const);
  say(`primary: ${how}`);
  await cluster.primary.stop(how);
  await writing;
  if (random.next() < 0.4 && cluster.standbys.length > 0)
    return await failOver(cluster, { random, say });
  await restartPrimary(cluster);
}

async function restartPrimary(cluster: ChaosCluster): Promise<void> {
  const outcome = await cluster.primary.start({ role: "primary" });
  assert.equal(outcome, "promoted", cluster.primary.log().slice(-4000));
}

async function failOver(cluster: ChaosCluster, { random, say }: Round): Promise<void> {
  const old = cluster.primary;
  const candidates = cluster.standbys;
  if (candidates.length === 0) {
    say("nobody to fail over to");
    if (old.role === "down") await restartPrimary(cluster);
    return;
  }
  const next = pick(random, candidates);
  const how =
    old.role === "down" ? "down" : pick(random, ["kill", "immediate", "fast", "alive"] as const);
  say(`${old.name} ${how}, ${next.name} takes over`);
  if (how === "kill" || how === "immediate" || how === "fast") await old.stop(how);
  if (!(await cluster.promote(next))) {
    if (next.role === "standby") await next.stop("immediate");
    if (old.role === "down") await restartPrimary(cluster);
    return;
  }
  if (random.next() < 0.7) await cluster.receive();
  if (how === "alive") {
    await cluster.write(old, below(random, 6));
    if (random.next() < 0.5) await old.server.switchWal();
    await old.stop(pick(random, ["kill", "immediate", "fast"] as const));
  }
  if (random.next() < 0.4) {
    const { code, stderr } = await next.run(["backfill", next.dataDirectory]);
    say(`backfill: ${code} ${stderr.slice(0, 200)}`);
  }
  for (const node of cluster.standbys) {
    await node.stop("fast");
    if (random.next() < 0.8) await cluster.follow(node);
  }
}

/** An old primary that goes on for a moment as it was. */
async function strayPrimary(cluster: ChaosCluster, { random, say }: Round): Promise<void> {
  const candidates = cluster.down.filter(
    (node) => node.path.length > 0 && wasPrimary(cluster, node),
  );
  if (candidates.length === 0) return;
  const node = pick(random, candidates);
  const outcome = await node.start({ role: "primary" });
  say(`${node.name}: ${outcome}`);
  if (outcome !== "promoted") return;
  await node.configure({ synchronous_standby_names: "" });
  await cluster.write(node, 2 + below(random, 8));
  await node.server.switchWal();
  await cluster.write(node, 1);
  await pause(random.next() * 1000);
  await node.stop(pick(random, ["kill", "immediate", "fast"] as const));
}

function wasPrimary(cluster: ChaosCluster, node: ChaosNode): boolean {
  return node.path.at(-1)?.epoch !== cluster.primary.path.at(-1)?.epoch && !node.wasStandby;
}

async function rejoinOne(cluster: ChaosCluster, { random, say }: Round): Promise<void> {
  const { down } = cluster;
  if (down.length === 0) return;
  const node = pick(random, down);
  say(`${node.name} ${await cluster.rejoin(node, random.next() < 0.6)}`);
}

async function backUp(cluster: ChaosCluster, { random, say }: Round): Promise<void> {
  const nodes = [cluster.primary, cluster.primary, ...cluster.standbys];
  const node = pick(random, nodes);
  const killAfterMs = random.next() < 0.2 ? random.next() * 2000 : 90_000;
  const { code, signal, stderr } = await node.run(["backup-push", node.dataDirectory], killAfterMs);
  say(`backup of ${node.name}: ${code ?? signal} ${code === 0 ? "" : stderr.slice(-300)}`);
}

async function expire(cluster: ChaosCluster, { say }: Round): Promise<void> {
  const { code, stderr } = await cluster.primary.run(["expire", "--confirm"]);
  say(`expire: ${code} ${code === 0 ? "" : stderr.slice(-300)}`);
}

/** Something happens meanwhile, and it is over. */
async function badWeather(cluster: ChaosCluster, round: Round): Promise<void> {
  const { random, say } = round;
  const weather = pick(random, ["flaky", "flaky", "away"] as const);
  await cluster.store.become(weather);
  const meanwhile = pick(random, [killWhileWriting, killWhileWriting, failOver, writeSome, backUp]);
  say(`${weather}: ${meanwhile.name}`);
  try {
    await meanwhile(cluster, round);
  } finally {
    await cluster.store.become("fine");
  }
}

async function writeSome(cluster: ChaosCluster, { random }: Round): Promise<void> {
  await cluster.write(cluster.primary, 3 + below(random, 12));
}

/** All machines die: what does the archive have? */
async function disaster(cluster: ChaosCluster, { say }: Round): Promise<void> {
  await cluster.primary.stop("kill");
  for (const node of cluster.standbys) await node.stop("kill");
  await cluster.endReceiver();
  for (const victim of cluster.victims()) victim.kill();
  await restoreAndCheck(cluster, { say, backup: "LATEST" });
  await restartPrimary(cluster);
  await cluster.receive();
  for (const node of cluster.down) {
    if (node.wasStandby) await cluster.follow(node);
  }
}

async function restoreAndCheck(
  cluster: ChaosCluster,
  { say, backup }: { readonly say: (text: string) => void; readonly backup: string },
): Promise<void> {
  const { broken, isRefused, held, log } = await restoreAndLook(cluster, backup);
  if (isRefused) {
    const errors = [...log.matchAll(/^.*(?:ERROR|FATAL).*$/gm)].map(([line]) => line);
    say(`refused to open: ${errors.slice(-3).join("\n")}`);
    // Every recovery asks for files that are not there: that alone is no reason.
    assert.match(errors.join("\n"), /is not in the archive .*, but |requested timeline|unexpected/);
    return;
  }
  say(`restored ${held.size} rows`);
  assert.deepEqual(broken, [], log.slice(-6000));
}

/** A restore to an earlier commit; it may become the cluster's new line. */
async function pointInTime(cluster: ChaosCluster, { random, say }: Round): Promise<void> {
  const epochs = new Map(cluster.primary.path.map((stretch) => [stretch.epoch, stretch]));
  const rows = cluster.rows.filter(({ epoch, toLsn }) => {
    const endLsn = epochs.get(epoch)?.endLsn;
    return toLsn !== undefined && epochs.has(epoch) && (endLsn === undefined || toLsn <= endLsn);
  });
  const target = rows[below(random, Math.max(1, rows.length))];
  if (target?.toLsn === undefined) return;
  await cluster.switchWal();
  await cluster.archiverDone(cluster.primary);
  const backup = await backupBefore(cluster, target.toLsn);
  if (backup === undefined) return;
  const wanted = lsnText(target.toLsn);
  say(`to ${wanted}, row ${target.n}, from ${backup}`);
  const node = pick(random, cluster.nodes);
  if (random.next() < 0.5) {
    const settings = { recovery_target_lsn: wanted, recovery_target_action: "promote" };
    const { isRefused, held, log } = await restoreAndLook(cluster, backup, settings);
    if (isRefused) return say(`refused: ${/^.*(ERROR|FATAL).*$/m.exec(log)?.[0]}`);
    assert.ok(held.has(target.n), `row ${target.n} is not there: ${log.slice(-5000)}`);
    return;
  }
  const likely = cluster.primary.path;
  for (const other of cluster.nodes) await other.stop(pick(random, ["fast", "immediate"] as const));
  await cluster.replace(node, backup);
  const outcome = await node.start({
    role: "recovery",
    settings: { recovery_target_lsn: wanted, recovery_target_action: "promote" },
  });
  if (outcome === "exited") {
    say(`refused: ${/^.*(ERROR|FATAL).*$/m.exec(node.log())?.[0]}`);
    node.wasStandby = true;
    if (node === cluster.primary) throw new Error(`the line is lost: ${node.log().slice(-5000)}`);
    return await restartPrimary(cluster);
  }
  await cluster.becamePrimary(node, likely);
  await cluster.receive();
}

async function switchMode(cluster: ChaosCluster): Promise<void> {
  cluster.isSynchronous = !cluster.isSynchronous;
  await cluster.writeSynchronousNames(cluster.primary);
  await cluster.receive();
}

async function standbyDown(cluster: ChaosCluster, { random, say }: Round): Promise<void> {
  const [node] = cluster.standbys;
  if (node === undefined) return;
  const how = pick(random, ["kill", "immediate", "fast"] as const);
  say(`${node.name}: ${how}`);
  await node.stop(how);
  if (random.next() < 0.3) return;
  await cluster.write(cluster.primary, below(random, 8));
  await cluster.follow(node);
}

/** All faults end: everybody gets to the newest state, and the archive is whole. */
async function settle(cluster: ChaosCluster, { random, say }: Round): Promise<void> {
  say("-- settle");
  await cluster.store.become("fine");
  const { primary } = cluster;
  await cluster.receive();
  const backfill = await primary.run(["backfill", primary.dataDirectory]);
  assert.equal(backfill.code, 0, `backfill: ${backfill.stderr}`);
  await cluster.write(primary, 3);
  const before = await primary.server.query("SELECT n FROM counted ORDER BY n");
  await cluster.switchWal();
  await cluster.archiverDone(primary);
  for (const node of cluster.nodes) await cluster.catchUp(node, random.next() < 0.5);
  say("everybody streams");
  const verified = await primary.run(["verify", "--full", "--json"]);
  await checkFindings(cluster, verified.stdout, say);
  say("verified");
  const { broken, isRefused, held, log } = await restoreAndLook(cluster, "LATEST");
  assert.ok(!isRefused, log.slice(-6000));
  assert.deepEqual(broken, [], log.slice(-6000));
  const expected = before.map(({ n }) => Number(n));
  const lacking = expected.filter((n) => !held.has(n));
  assert.deepEqual(lacking, [], `rows of the primary that a restore lacks: ${log.slice(-6000)}`);
  say(`settled with ${held.size} rows of ${cluster.rows.length}`);
}

interface Finding {
  readonly kind: string;
  readonly object: string;
  readonly what: string;
}

/** Whatever is wrong is of a line that was left. */
async function checkFindings(
  cluster: ChaosCluster,
  stdout: string,
  say: (text: string) => void,
): Promise<void> {
  const report: { readonly findings: readonly Finding[] } = JSON.parse(stdout);
  const timelines = new Map(cluster.primary.path.map((stretch) => [stretch.timeline, stretch]));
  const wrong = report.findings.filter(({ kind }) => kind !== "note");
  for (const finding of wrong) {
    say(`verify: ${JSON.stringify(finding)}`);
    const name = /[0-9A-F]{24}/.exec(finding.object)?.[0];
    assert.ok(finding.kind === "hole" && name !== undefined, JSON.stringify(finding));
    const stretch = timelines.get(Number.parseInt(name.slice(0, 8), 16));
    const lsn =
      (BigInt(`0x${name.slice(8, 16)}`) << 32n) + BigInt(`0x${name.slice(16)}`) * 1048576n;
    const isOnLine =
      stretch !== undefined && (stretch.endLsn === undefined || lsn < stretch.endLsn);
    assert.ok(!isOnLine, JSON.stringify(finding));
  }
}

function lsnText(lsn: bigint): string {
  return `${(lsn >> 32n).toString(16)}/${(lsn & 0xffff_ffffn).toString(16)}`.toUpperCase();
}

function below(random: Random, limit: number): number {
  return Math.floor(random.next() * limit);
}
