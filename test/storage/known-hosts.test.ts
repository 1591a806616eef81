import assert from "node:assert/strict";
import { test } from "node:test";
import {
  fingerprint,
  hostKeyType,
  hostName,
  judgeHostKey,
  knownKeyTypes,
  parseKnownHosts,
} from "../../src/storage/known-hosts.ts";

/** Made by ssh-keygen 9.2. */
const FIRST = "AAAAC3NzaC1lZDI1NTE5AAAAIMqqQgjbVGHUW4fVgbUaEq2YOgA7Zc6tuD4Fvkdyk4ZQ";
const SECOND = "AAAAC3NzaC1lZDI1NTE5AAAAIP0S0VVhZyBzFCkSlI0vBxKvg3vDeTSoQG0AYoYlrtdD";
const RSA = Buffer.concat([Buffer.from([0, 0, 0, 7]), Buffer.from("ssh-rsa????")]);

const first = Buffer.from(FIRST, "base64");
const second = Buffer.from(SECOND, "base64");

function judge(text: string, host: string, port = 22, key = first): string {
  return judgeHostKey(parseKnownHosts(text, "f"), { host, port }, key).kind;
}

const line = (names: string, key = FIRST) => `${names} ssh-ed25519 ${key} comment\n`;

const rows: readonly (readonly [string, string, number, string])[] = [
  [line("host"), "host", 22, "known"],
  [line("HOST"), "hoSt", 22, "known"],
  [line("a,host,b"), "host", 22, "known"],
  [line("host"), "host2", 22, "unknown"],
  [line("host"), "xhost", 22, "unknown"],
  [line("ho*"), "host", 22, "known"],
  [line("h?st"), "host", 22, "known"],
  [line("h?st"), "hoost", 22, "unknown"],
  [line("*.example.com"), "a.b.example.com", 22, "known"],
  [line("*.example.com"), "axexample.com", 22, "unknown"],
  [line("*,!host"), "host", 22, "unknown"],
  [line("!host,*"), "host", 22, "unknown"],
  [line("!host,*"), "other", 22, "known"],
  [line("[host]:2222"), "host", 2222, "known"],
  [line("[host]:2222"), "host", 22, "unknown"],
  [line("[host]:2222"), "host", 2223, "unknown"],
  // OpenSSH takes the key of the standard port as good for the others, but no more.
  [line("host"), "host", 2222, "known"],
  [line("host", SECOND), "host", 2222, "unknown"],
  [line("host", SECOND), "host", 22, "changed"],
  [line("host", SECOND) + line("host"), "host", 22, "known"],
  [`@revoked ${line("*")}${line("host")}`, "host", 22, "revoked"],
  [`@revoked ${line("*", SECOND)}${line("host")}`, "host", 22, "known"],
  [`@cert-authority ${line("host")}`, "host", 22, "unknown"],
  [`# ${line("host")}`, "host", 22, "unknown"],
  ["", "host", 22, "unknown"],
  ["host ssh-ed25519\n", "host", 22, "unknown"],
  [`host ssh-rsa ${FIRST}\n`, "host", 22, "unknown"],
  [`host ssh-ed25519 ${FIRST.slice(0, 8)}\n`, "host", 22, "unknown"],
  [`  host   ssh-ed25519  ${FIRST}`, "host", 22, "known"],
];

for (const [text, host, port, expected] of rows) {
  test(`${JSON.stringify(text.trim())} for ${hostName({ host, port })}: ${expected}`, () => {
    assert.equal(judge(text, host, port), expected);
  });
}

test("hashed names are found, as ssh-keygen -H wrote them", async () => {
  const { createHmac } = await import("node:crypto");
  const salt = Buffer.from("0123456789abcdefghij");
  for (const [host, port] of [
    ["host", 22],
    ["127.0.0.1", 2222],
  ] as const) {
    const hash = createHmac("sha1", salt).update(hostName({ host, port })).digest("base64");
    const text = line(`|1|${salt.toString("base64")}|${hash}`);
    assert.equal(judge(text, host, port), "known");
    assert.equal(judge(text, host, port, second), "changed");
    assert.equal(judge(text, "elsewhere", port), "unknown");
  }
});

test("a changed key names the line of the known one", () => {
  const verdict = judgeHostKey(
    parseKnownHosts(`# comment\n\n${line("host", SECOND)}`, "/known"),
    { host: "host", port: 22 },
    first,
  );
  assert.equal(verdict.kind === "changed" && verdict.known.place, "/known:3");
});

test("types of known keys are those of the host, on its port or the standard one", () => {
  const text = `${line("host")}h ssh-rsa ${RSA.toString("base64")}\n[host]:22 x y`;
  const hosts = parseKnownHosts(text, "f");
  assert.deepEqual([...knownKeyTypes(hosts, { host: "host", port: 2222 })], ["ssh-ed25519"]);
  assert.deepEqual([...knownKeyTypes(hosts, { host: "h", port: 22 })], ["ssh-rsa"]);
  assert.deepEqual([...knownKeyTypes(hosts, { host: "g", port: 22 })], []);
});

test("a fingerprint is what ssh-keygen -l shows", () => {
  assert.match(fingerprint(first), /^SHA256:[A-Za-z0-9+/]{43}$/);
  assert.notEqual(fingerprint(first), fingerprint(second));
});

test("the type of a key that is cut off is none", () => {
  assert.equal(hostKeyType(first), "ssh-ed25519");
  assert.equal(hostKeyType(first.subarray(0, 8)), "");
  assert.equal(hostKeyType(Buffer.alloc(3)), "");
});
