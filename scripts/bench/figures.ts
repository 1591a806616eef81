import type { Measurement } from "./process.ts";

/** One way of doing the measured job; `prepare` is not timed. */
export interface Contender {
  readonly name: string;
  prepare?(round: number): Promise<void>;
  run(round: number): Promise<Measurement>;
}

export interface Spread {
  readonly minimum: number;
  readonly median: number;
  readonly maximum: number;
}

export interface Row {
  readonly name: string;
  readonly wallMs: Spread;
  readonly cpuMs: Spread;
  readonly peakMiB: Spread;
  /**
   * Its wall time in a round by that of the first contender in the same round: above 1 = slower.
   */
  readonly timesFirst: Spread;
}

/** Minimum, median and maximum. */
export function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (index: number) => sorted[index] ?? Number.NaN;
  return {
    minimum: at(0),
    median: at(Math.floor((sorted.length - 1) / 2)),
    maximum: at(sorted.length - 1),
  };
}

/** Runs the contenders in turn, round by round, so that the machine's moods hit all of them. */
export async function compare(contenders: readonly Contender[], rounds: number): Promise<Row[]> {
  const measured = new Map<string, Measurement[]>(contenders.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round += 1) {
    for (const contender of contenders) {
      await contender.prepare?.(round);
      measured.get(contender.name)?.push(await contender.run(round));
    }
  }
  const [first] = contenders;
  const reference = measured.get(first?.name ?? "") ?? [];
  return contenders.map(({ name }) => {
    const runs = measured.get(name) ?? [];
    return {
      name,
      wallMs: spread(runs.map(({ wallMs }) => wallMs)),
      cpuMs: spread(runs.map(({ cpuMs }) => cpuMs)),
      peakMiB: spread(runs.map(({ peakMiB }) => peakMiB)),
      timesFirst: spread(
        runs.map(({ wallMs }, i) => wallMs / (reference[i]?.wallMs ?? Number.NaN)),
      ),
    };
  });
}

/** "1.0 / 2.0 / 3.0". */
export function triple({ minimum, median, maximum }: Spread, digits: number): string {
  return [minimum, median, maximum].map((value) => value.toFixed(digits)).join(" / ");
}

/** Short times with one digit more. */
function milliseconds(times: Spread): string {
  return triple(times, times.median < 10 ? 1 : 0);
}

/** A Markdown table; every cell holds minimum / median / maximum. */
export function formatTable(title: string, rows: readonly Row[]): string {
  const [first] = rows;
  // Of servers and what they start only times are known.
  const hasPeaks = rows.every(({ peakMiB }) => !Number.isNaN(peakMiB.median));
  const names = ["wall ms", "CPU ms", ...(hasPeaks ? ["peak MiB"] : [])];
  const lines = [
    `### ${title}`,
    "",
    `| | ${names.join(" | ")} | wall, times ${first?.name ?? ""} |`,
    `| --- | ${names.map(() => "---").join(" | ")} | --- |`,
    ...rows.map((row) => {
      const peaks = hasPeaks ? [triple(row.peakMiB, 0)] : [];
      const cells = [...[row.wallMs, row.cpuMs].map(milliseconds), ...peaks];
      return `| ${row.name} | ${cells.join(" | ")} | ${triple(row.timesFirst, 2)} |`;
    }),
  ];
  return `${lines.join("\n")}\n`;
}
