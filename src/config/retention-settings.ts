import { defaulted, setting } from "./setting.ts";
import { duration, integer } from "./value-types.ts";

/** The policy of `walnut expire`, and how anything is removed. */
export const retention = {
  fulls: setting(
    "RETAIN_FULLS",
    integer(1),
    "expire keeps so many of the newest full backups, with the increments on them.",
    { form: "own" },
  ),
  days: setting(
    "RETAIN_DAYS",
    integer(0, 36_500),
    "expire keeps whatever a restore to any time of so many last days needs, and every backup taken " +
      "in them.",
    { form: "own", unit: "days" },
  ),
  pitrDays: setting(
    "RETAIN_PITR_DAYS",
    integer(0, 36_500),
    "expire keeps whatever a restore to any time of so many last days needs; backups that are kept " +
      "longer keep only the WAL that makes them consistent.",
    { form: "own", unit: "days" },
  ),
  daily: setting("RETAIN_DAILY", integer(0), "expire keeps one backup of each of so many days.", {
    form: "own",
  }),
  weekly: setting(
    "RETAIN_WEEKLY",
    integer(0),
    "expire keeps one backup of each of so many weeks.",
    {
      form: "own",
    },
  ),
  monthly: setting(
    "RETAIN_MONTHLY",
    integer(0),
    "expire keeps one backup of each of so many months.",
    { form: "own" },
  ),
  yearly: setting(
    "RETAIN_YEARLY",
    integer(0),
    "expire keeps one backup of each of so many years.",
    {
      form: "own",
    },
  ),
  minimum: defaulted(
    "RETAIN_MINIMUM",
    integer(1),
    "expire never leaves fewer full backups than this that can be restored.",
    { form: "own", default: "1" },
  ),
  abandonedAfter: defaulted(
    "ABANDONED_AFTER",
    duration({ minMs: 0 }),
    "How long ago a later backup must have begun before an unfinished one counts as garbage, and how " +
      "old an unfinished upload must be.",
    { form: "own", default: "24h" },
  ),
  deleteRate: setting("DELETE_RATE", integer(1), "Most objects that are removed per second.", {
    form: "own",
    unit: "objects per second",
  }),
} as const;
