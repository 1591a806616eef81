import { randomBytes } from "node:crypto";
import type { RetentionConfig } from "../config/config.ts";
import { ConfigError } from "../errors.ts";
import type { Log } from "../io/log.ts";
import { isPolicyGiven, selectByPolicy } from "../retention/policy.ts";
import { formatPlanJson, formatPlanTable } from "../retention/plan-text.ts";
import { removedKeys } from "../retention/removal.ts";
import { applyRetention, prepareRetention } from "../retention/retention.ts";
import type { Command } from "./command.ts";
import { requirePositionals } from "./words.ts";

interface ExpireArguments {
  readonly isConfirmed: boolean;
  readonly isJson: boolean;
}

/** `walnut expire` */
export const expire: Command<ExpireArguments> = {
  name: "expire",
  usage: "expire [--confirm] [--json]",
  summary: "Remove what the configured policy does not keep; without --confirm only show it.",
  details:
    "The policy is made of the settings WALNUT_RETAIN_...: what any of them keeps stays, with all " +
    "that it needs. Standard output says for each backup, and for each run of WAL, whether it stays " +
    "and why. The exit code is not 0 if anything could not be removed; run it again then.",
  flags: [
    { name: "confirm", text: "Do it. Without this flag it is only shown." },
    { name: "json", text: "The plan as one JSON object." },
  ],
  needsConfig: true,

  parse(words) {
    requirePositionals(words, []);
    return { isConfirmed: words.has("confirm"), isJson: words.has("json") };
  },

  async run({ isConfirmed, isJson }, context) {
    const { log, config } = context;
    requirePolicy(config.retention);
    await using storage = await context.openStorage();
    const { minimumFulls } = config.retention;
    const options = { ...context, ...config.removal, minimumFulls };
    const prepared = await prepareRetention(
      storage,
      (survey, nowNs) =>
        survey.catalogue.backups.length === 0
          ? undefined
          : selectByPolicy(survey, config.retention, nowNs),
      options,
    );
    if (prepared === undefined) {
      log.info("No backups found: nothing is removed", { storage: storage.name });
      if (isJson) await context.write(`${formatPlanJson()}\n`);
      return;
    }
    const { plan } = prepared;
    await context.write(isJson ? `${formatPlanJson(plan)}\n` : formatPlanTable(plan));
    const count = countOf(removedKeys(plan));
    if (!isConfirmed) return sayDryRun(count, log);
    const runId = randomBytes(4).toString("hex");
    const removed = await applyRetention(storage, prepared, { ...options, runId });
    log.info("Objects deleted successfully", { count: removed });
  },
};

function sayDryRun(count: number, log: Log): void {
  log.info("Dry run: nothing was removed. Run with --confirm to execute", { count });
}

function requirePolicy(policy: RetentionConfig): void {
  if (isPolicyGiven(policy)) return;
  throw new ConfigError("no retention policy is configured", {
    hint:
      "Set at least one (to more than 0) of WALNUT_RETAIN_DAYS, WALNUT_RETAIN_PITR_DAYS, WALNUT_RETAIN_FULLS and " +
      "WALNUT_RETAIN_DAILY to _YEARLY; docs/retention.md has examples.",
  });
}

function countOf(items: Iterable<unknown>): number {
  let count = 0;
  for (const _ of items) count += 1;
  return count;
}
