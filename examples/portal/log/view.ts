// What is on the screen, row by row: headers of phases, folded runs, holes, and lines. Rows have one height, so a row's place is
// its number; a long line may take several. New lines extend the view; only a fold, a width or a late chunk rebuilds it.

import { isRefresh, opensByItself, sectionAt, type Section } from "./section.ts";
import type { Hole, LogStore } from "./store.ts";

export type Mark =
  | { kind: "section"; section: number }
  | { kind: "refresh"; first: number; last: number; open: boolean }
  | { kind: "hole"; hole: Hole };

export interface ViewOptions {
  /** Columns after which a line continues in the next row; null: never. */
  columns: number | null;
  /** Whether the deployment failed: then its last section is the one to read. */
  failed: boolean;
}

/** So many lines of a run are folded. */
const SHORTEST_RUN = 4;

export class LogView {
  readonly sections: Section[] = [];
  /** A row is the index of a line, or -1 - the index of a mark. */
  readonly rows: number[] = [];
  /** Which part of its line a row is, where lines are broken. */
  readonly parts: number[] = [];
  readonly marks: Mark[] = [];
  /** Changes when rows that were there before have moved. */
  version = 0;
  private readonly chosen = new Map<number, boolean>();
  private readonly openRuns = new Set<number>();
  private built = 0;
  private holes = 0;
  private run: { first: number; mark: number | null } | null = null;
  private open = true;
  /** Whether each section's lines were laid out. */
  private readonly placed: boolean[] = [];
  private generation = 0;
  private readonly store: LogStore;
  private options: ViewOptions;

  constructor(store: LogStore, options: ViewOptions = { columns: null, failed: false }) {
    this.store = store;
    this.options = options;
    this.generation = store.generation;
    this.extend();
  }

  /** Takes in what the store has got since. */
  extend(): void {
    if (this.generation !== this.store.generation) {
      this.generation = this.store.generation;
      this.rebuild();
      return;
    }
    const before = Math.max(0, this.sections.length - 1);
    const { texts } = this.store;
    for (let i = this.built; i < texts.length; i++) this.take(i);
    this.built = texts.length;
    this.takeHoles(this.built);
    // A section that was the last one may close once it is not.
    for (let section = before; section < this.sections.length; section++) {
      if (this.placed[section] !== this.isOpen(section)) {
        this.rebuild();
        return;
      }
    }
  }

  setOptions(options: ViewOptions): void {
    const same = options.columns === this.options.columns && options.failed === this.options.failed;
    this.options = options;
    if (!same) this.rebuild();
  }

  get columns(): number | null {
    return this.options.columns;
  }

  isOpen(section: number): boolean {
    const last = section === this.sections.length - 1;
    return this.chosen.get(section) ?? opensByItself(this.sections[section]!.kind, last, this.options.failed);
  }

  toggle(section: number): void {
    this.chosen.set(section, !this.isOpen(section));
    this.rebuild();
  }

  toggleRun(first: number): void {
    if (!this.openRuns.delete(first)) this.openRuns.add(first);
    this.rebuild();
  }

  foldAll(open: boolean): void {
    this.sections.forEach((_, i) => this.chosen.set(i, open));
    if (!open) this.openRuns.clear();
    this.rebuild();
  }

  sectionOf(line: number): number {
    let low = 0;
    let high = this.sections.length - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (this.sections[middle]!.first <= line) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** The lines of a section: from its first to before `end`. */
  endOf(section: number): number {
    return this.sections[section + 1]?.first ?? this.store.length;
  }

  /** When the section after it began, or null where it is the last. */
  ended(section: number): number | null {
    return this.sections[section + 1]?.began ?? null;
  }

  /** Opens what hides a line; answers its row, or -1 where there is no such line. */
  reveal(line: number): number {
    if (line < 0 || line >= this.built) return -1;
    const found = this.rowOf(line);
    if (found >= 0) return found;
    const section = this.sectionOf(line);
    if (!this.isOpen(section)) this.chosen.set(section, true);
    this.rebuild();
    const row = this.rowOf(line);
    if (row >= 0) return row;
    const run = this.marks.find((mark) => mark.kind === "refresh" && mark.first <= line && line <= mark.last);
    if (run?.kind === "refresh") this.openRuns.add(run.first);
    this.rebuild();
    return this.rowOf(line);
  }

  /** The first row of a line, or -1 where it is folded away. */
  rowOf(line: number): number {
    // Lines ascend; marks between them are skipped.
    let low = 0;
    let high = this.rows.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      let at = middle;
      while (at <= high && this.rows[at]! < 0) at++;
      if (at > high) {
        high = middle - 1;
      } else if (this.rows[at]! < line) {
        low = at + 1;
      } else if (this.rows[at]! > line || (this.parts[at] ?? 0) > 0) {
        high = middle - 1;
      } else {
        return at;
      }
    }
    return -1;
  }

  private rebuild(): void {
    this.version += 1;
    this.rows.length = this.parts.length = this.marks.length = 0;
    this.built = this.holes = 0;
    this.run = null;
    this.open = true;
    const { texts } = this.store;
    // Which section is the last decides what is open: they are found first.
    this.sections.length = 0;
    for (let i = 0; i < texts.length; i++) this.findSection(i);
    let next = 0;
    for (let i = 0; i < texts.length; i++) {
      if (this.sections[next]?.first === i) this.begin(next++);
      this.place(i);
    }
    this.built = texts.length;
    this.takeHoles(this.built);
  }

  private findSection(i: number): boolean {
    const stream = this.store.stream(i);
    // Only the agent's own lines begin a section, and the first line of all.
    if (stream !== "agent" && i > 0) return false;
    const section = sectionAt(i, this.store.texts[i]!, stream, this.store.time(i));
    if (section) this.sections.push(section);
    return section !== null;
  }

  private take(i: number): void {
    if (this.findSection(i)) this.begin(this.sections.length - 1);
    this.place(i);
  }

  private begin(section: number): void {
    this.takeHoles(this.sections[section]!.first);
    this.run = null;
    this.open = this.placed[section] = this.isOpen(section);
    this.mark({ kind: "section", section });
  }

  private place(i: number): void {
    this.takeHoles(i);
    if (!this.open) return;
    const text = this.store.texts[i]!;
    if (!isRefresh(text)) {
      this.run = null;
      this.line(i, text);
      return;
    }
    this.run ??= { first: i, mark: null };
    const mark = this.run.mark === null ? null : this.marks[this.run.mark]!;
    if (mark?.kind === "refresh") {
      mark.last = i;
      if (mark.open) this.line(i, text);
      return;
    }
    this.line(i, text);
    if (i - this.run.first + 1 < SHORTEST_RUN) return;
    const first = this.run.first;
    while (this.rows.length > 0 && this.rows[this.rows.length - 1]! >= first) {
      this.rows.pop();
      this.parts.pop();
    }
    const open = this.openRuns.has(first);
    this.run.mark = this.marks.length;
    this.mark({ kind: "refresh", first, last: i, open });
    if (open) for (let line = first; line <= i; line++) this.line(line, this.store.texts[line]!);
  }

  private takeHoles(line: number): void {
    for (let hole = this.store.holes[this.holes]; hole && hole.before <= line; hole = this.store.holes[this.holes]) {
      if (hole.before === this.store.length && line < this.store.length) return;
      this.holes += 1;
      this.run = null;
      this.mark({ kind: "hole", hole });
    }
  }

  private mark(mark: Mark): void {
    this.marks.push(mark);
    this.rows.push(-this.marks.length);
    this.parts.push(0);
  }

  private line(i: number, text: string): void {
    const columns = this.options.columns;
    const parts = columns === null ? 1 : Math.max(1, Math.ceil(text.length / columns));
    for (let part = 0; part < parts; part++) {
      this.rows.push(i);
      this.parts.push(part);
    }
  }
}
