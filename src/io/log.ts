/** Severity of a log line; "debug" only appears when the user asked for it. */
export type LogLevel = "debug" | "info" | "warning" | "error";

/** Values of an event, by name. Secrets never belong here. */
export type LogFields = Readonly<Record<string, string | number | bigint | boolean | undefined>>;

/** One line an event: a short text without values, and the values beside it. */
export interface Log {
  debug(text: string, fields?: LogFields): void;
  info(text: string, fields?: LogFields): void;
  warning(text: string, fields?: LogFields): void;
  error(text: string, fields?: LogFields): void;
}

/** For callers that must not write, such as tests of other things. */
export const silentLog: Log = {
  debug: () => {},
  info: () => {},
  warning: () => {},
  error: () => {},
};
