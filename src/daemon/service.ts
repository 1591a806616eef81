import { spawn } from "node:child_process";
import { loadSystemCalls, type SystemCalls } from "../io/runtime.ts";

/** What systemd tells a service that it starts. */
export interface Service {
  /** Where it listens for states: a path, or "@" and an abstract name. */
  readonly notifySocket?: string;
  /** It ends us when it has heard nothing for so long. */
  readonly watchdogMs?: number;
  /** A listening socket that was opened for us. */
  readonly listenDescriptor?: number;
}

/** What was given to this process when it was started. */
export interface Launch {
  readonly processId: number;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** @source SD_LISTEN_FDS_START, sd-daemon.h */
const FIRST_DESCRIPTOR = 3;

/**
 * Reads the variables of sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3). What is meant
 * for another process, or is no number, counts as absent.
 */
export function readService({ processId, environment }: Launch): Service {
  const notifySocket = environment["NOTIFY_SOCKET"] ?? "";
  const watchdogUs = wholeNumber(environment["WATCHDOG_USEC"]);
  const watchdogPid = wholeNumber(environment["WATCHDOG_PID"]) ?? processId;
  const isListening =
    wholeNumber(environment["LISTEN_PID"]) === processId &&
    (wholeNumber(environment["LISTEN_FDS"]) ?? 0) > 0;
  return {
    ...(/^[/@]./.test(notifySocket) ? { notifySocket } : {}),
    ...(watchdogUs !== undefined && watchdogUs > 0 && watchdogPid === processId
      ? { watchdogMs: watchdogUs / 1000 }
      : {}),
    ...(isListening ? { listenDescriptor: FIRST_DESCRIPTOR } : {}),
  };
}

/** Tells systemd how we are; does nothing where there is none. Never fails: it is only news. */
export class ServiceNotifier {
  readonly #address: string | undefined;
  readonly #calls: SystemCalls | undefined;
  readonly #searchPath: string;
  #status = "";

  static async open({ notifySocket }: Service): Promise<ServiceNotifier> {
    const calls = notifySocket === undefined ? undefined : await loadSystemCalls();
    return new ServiceNotifier(notifySocket, calls);
  }

  /** Without system calls, the program systemd-notify is called for each message. */
  constructor(
    address: string | undefined,
    calls: SystemCalls | undefined,
    searchPath = SYSTEM_PATH,
  ) {
    this.#address = address;
    this.#calls = calls;
    this.#searchPath = searchPath;
  }

  ready(): void {
    this.#send("READY=1");
  }

  /** `ready` says when it is over. */
  reloading(): void {
    const us = this.#calls?.monotonicUs();
    if (us === undefined) this.#send("RELOADING=1");
    else this.#send("RELOADING=1", `MONOTONIC_USEC=${us}`);
  }

  stopping(): void {
    this.#send("STOPPING=1");
  }

  /** We are alive and get on. */
  alive(): void {
    this.#send("WATCHDOG=1");
  }

  /** One line for `systemctl status`; the same one again is not sent. */
  status(text: string): void {
    if (text === this.#status) return;
    this.#status = text;
    this.#send(`STATUS=${text.replace(/\p{Cc}/gu, " ")}`);
  }

  #send(...lines: readonly string[]): void {
    if (this.#address === undefined) return;
    if (this.#calls?.sendDatagram(this.#address, lines.join("\n")) === true) return;
    if (this.#calls !== undefined) return;
    const child = spawn("systemd-notify", [...lines], {
      env: { PATH: this.#searchPath, NOTIFY_SOCKET: this.#address },
      stdio: "ignore",
    });
    child.on("error", () => {});
    child.unref();
  }
}

const SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin";

function wholeNumber(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d{1,15}$/.test(text)) return undefined;
  return Number(text);
}
