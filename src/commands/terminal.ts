import type { Output } from "./program.ts";
import type { StatusLine } from "./progress.ts";

const ERASE_LINE = "\r\u001B[K";

/** Standard error: log lines above, and on a terminal one status line below them. */
export class Terminal implements StatusLine {
  readonly #output: Output;
  #isStatusShown = false;

  constructor(output: Output) {
    this.#output = output;
  }

  get isTerminal(): boolean {
    return this.#output.isTerminal;
  }

  writeLines(lines: string): void {
    this.clear();
    void this.#output.write(lines);
  }

  show(text: string): void {
    this.#isStatusShown = true;
    void this.#output.write(`${ERASE_LINE}${text.slice(0, this.#output.columns - 1)}`);
  }

  clear(): void {
    if (!this.#isStatusShown) return;
    this.#isStatusShown = false;
    void this.#output.write(ERASE_LINE);
  }
}
