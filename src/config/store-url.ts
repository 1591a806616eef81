import { ConfigError } from "../errors.ts";
import type { FoundSettings } from "./found-settings.ts";
import type { Setting } from "./setting.ts";

/**
 * "s3://bucket/a/b/" → bucket and "a/b". The scheme may be any, as for WAL-G. Throws ConfigError.
 */
export function parseStoreUrl(
  found: FoundSettings,
  setting: Setting<string>,
): { readonly bucket: string; readonly folder: string } {
  const url = found.get(setting) ?? "";
  const match = /^[A-Za-z][A-Za-z0-9+.-]*:\/\/([^/?#@\s]+)(\/[^?#]*)?$/.exec(url);
  if (match?.[1] === undefined) {
    throw new ConfigError(`${found.describe(setting)} is no URL of a store: ${url}`, {
      hint: `It has the form s3://bucket/folder.${escapeHint(url)}`,
    });
  }
  return { bucket: match[1], folder: cleanFolder(decodePath(match[2] ?? "")) };
}

/** What else there is to say of a URL that is refused, with a blank before it. */
export function escapeHint(url: string): string {
  return /[?#]/.test(url) ? " A ? in its path is written %3F, and a # is written %23." : "";
}

/**
 * The URL of a server, without "/" at its end. As in Go's SDK of AWS, one without a scheme is
 * https. Throws ConfigError.
 */
export function readEndpoint(found: FoundSettings, setting: Setting<string>): string | undefined {
  const text = found.get(setting);
  if (text === undefined) return undefined;
  const url = text.includes("://") ? text : `https://${text}`;
  if (!isHttpUrl(url)) {
    throw new ConfigError(`${found.describe(setting)} is no URL of a server: ${text}`, {
      hint: ENDPOINT_FORM,
    });
  }
  return url.replace(/\/+$/, "");
}

export const ENDPOINT_FORM = "It has the form https://host or https://host:port.";

/** Whether it can be asked: scheme, host, perhaps a port and a path. */
export function isHttpUrl(url: string): boolean {
  return /^https?:\/\/[^/?#\s]+(\/[^?#\s]*)?$/.test(url) && URL.canParse(url);
}

/** Go's URLs are decoded; a path that can't be decoded is taken as it is. */
export function decodePath(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}

/** Segments joined by one "/", none at either end. */
export function cleanFolder(folder: string): string {
  return folder
    .split("/")
    .filter((part) => part !== "")
    .join("/");
}

/** A record with `key`, or without it where there is no value. */
export function defined<K extends string, T>(key: K, value: T | undefined): { [P in K]?: T } {
  const empty: { [P in K]?: T } = {};
  return value === undefined ? empty : { ...empty, [key]: value };
}
