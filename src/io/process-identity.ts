import { readFileSync, readlinkSync } from "node:fs";
import { systemErrorCode } from "../errors.ts";

/**
 * Names a process, ourselves unless told, so that nothing else ever has the name: process id, start
 * time and the boot it runs in. Undefined where the system does not tell (all but Linux), and when
 * there is no such process.
 */
export function describeProcess(pid = "self"): string | undefined {
  const boot = readProc("sys/kernel/random/boot_id")?.trim();
  const stat = /^(self|[1-9]\d{0,9})$/.test(pid) ? readStat(pid) : undefined;
  return boot === undefined || stat === undefined
    ? undefined
    : `${stat.pid}:${stat.startTime}:${boot}`;
}

/**
 * Whether the process that `describeProcess` named still runs here. False for one on another host
 * or in another PID namespace: it can't be seen.
 */
export function isProcessAlive(name: string): boolean {
  const [pid = "", startTime, boot] = name.split(":");
  if (!/^[1-9]\d*$/.test(pid)) return false;
  if (readProc("sys/kernel/random/boot_id")?.trim() !== boot) return false;
  const stat = readStat(pid);
  return stat !== undefined && stat.startTime === startTime && stat.state !== "Z";
}

/** As `describeProcess` for ourselves, with what tells where the name means anything. */
export function describeHolder(): string | undefined {
  const name = describeProcess();
  const namespace = pidNamespace();
  return name === undefined || namespace === undefined ? undefined : `${name}@${namespace}`;
}

/** What became of the process that `describeHolder` named: from elsewhere it can't be told. */
export function stateOfHolder(holder: string): "alive" | "dead" | "unknown" {
  const [name = "", namespace] = holder.split("@");
  const boot = readProc("sys/kernel/random/boot_id")?.trim();
  const isHere = namespace === pidNamespace() && name.endsWith(`:${boot}`);
  if (!isHere) return "unknown";
  return isProcessAlive(name) ? "alive" : "dead";
}

function pidNamespace(): string | undefined {
  try {
    return readlinkSync("/proc/self/ns/pid");
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return undefined;
  }
}

interface ProcessStat {
  readonly pid: string;
  readonly state: string;
  /** Clock ticks since the boot. */
  readonly startTime: string;
}

/**
 * @source proc(5): field 3 is the state, 22 the start time; the name before them may hold blanks
 */
function readStat(pid: string): ProcessStat | undefined {
  const text = readProc(`${pid}/stat`);
  const match = /^(\d+) \(.*\) (\S) (.*)$/s.exec(text ?? "");
  const startTime = match?.[3]?.split(" ")[18];
  if (match?.[1] === undefined || match[2] === undefined || startTime === undefined) {
    return undefined;
  }
  return { pid: match[1], state: match[2], startTime };
}

function readProc(name: string): string | undefined {
  try {
    return readFileSync(`/proc/${name}`, "utf8");
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return undefined;
  }
}
