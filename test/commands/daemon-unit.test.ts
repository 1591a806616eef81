import assert from "node:assert/strict";
import { mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { systemdUnit, unitWord, userName } from "../../src/commands/daemon-unit.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { runTool } from "../support/tools.ts";
import { runWalnut } from "../support/walnut.ts";

test("quotes what a unit file would take apart", () => {
  const cases = [
    ["/usr/bin/walnut", "/usr/bin/walnut"],
    ["--config=/etc/a b", '"--config=/etc/a b"'],
    ["50%", "50%%"],
    ["$HOME", "$$HOME"],
    ['a"b\\c', '"a\\"b\\\\c"'],
    ["", '""'],
  ] as const;
  for (const [word, expected] of cases) assert.equal(unitWord(word), expected);
});

test("its comments are lines for postgresql.conf that reach the same socket", async () => {
  const words = ["/opt/my tools/walnut", "--config=/etc/walnut.yaml"];
  const unit = systemdUnit({ words, dataDirectory: "/var/lib/100%/data", user: "postgres" });
  assert.match(
    unit,
    /^ExecStart="\/opt\/my tools\/walnut" --config=\S+ daemon \/run\/walnut\/walnut\.sock$/m,
  );
  assert.match(unit, /^Environment=PGDATA=\/var\/lib\/100%%\/data$/m);
  assert.match(unit, /^User=postgres$/m);
  const line = /^# archive_command = '(.*)'$/m.exec(unit)?.[1]?.replaceAll("''", "'") ?? "";
  const shell = line.replaceAll("%f", "X").replaceAll("%%", "%");
  const printed = await runTool("sh", ["-c", `printf '%s\\n' ${shell}`], Buffer.alloc(0));
  assert.equal(
    printed.toString(),
    "/opt/my tools/walnut\nclient\n/run/walnut/walnut.sock\nwal-push\nX\n",
  );
});

test("is started again however often it ends, and killed without the last words of a crash", () => {
  const unit = systemdUnit({
    words: ["/usr/bin/walnut"],
    dataDirectory: "/data",
    user: "postgres",
  });
  const [head = "", service = ""] = unit.split("[Service]");
  assert.match(head, /^StartLimitIntervalSec=0$/m);
  assert.match(service, /^Restart=always$/m);
  assert.match(service, /^WatchdogSignal=SIGKILL$/m);
});

test("names the user, and says the number of one that has no name here", () => {
  const passwd =
    "root:x:0:0:root:/root:/bin/sh\npostgres:x:101:104:,,,:/var/lib/postgresql:/bin/bash\n";
  assert.equal(userName(101, passwd), "postgres");
  assert.equal(userName(10, passwd), "10");
  assert.equal(userName(104, ""), "104");
});

test("setup prints it for the owner of the data directory", async () => {
  using directory = scratchDirectory();
  const data = join(directory.path, "data");
  mkdirSync(data);
  const env = { WALG_FILE_PREFIX: directory.path };
  const { code, stdout, stderr } = await runWalnut(["setup", data, "--systemd"], { env });
  assert.equal(code, 0, stderr);
  const owner = (
    await runTool("id", ["-nu", String(statSync(data).uid)], Buffer.alloc(0))
  ).toString();
  assert.match(stdout, new RegExp(`^User=${owner.trim()}$`, "m"));
  assert.match(stdout, new RegExp(`^Environment=PGDATA=${data}$`, "m"));
});
