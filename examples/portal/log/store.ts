// The lines of one attempt, made of chunks that may come late, twice or out of order.

import { hasEscapes, PLAIN, plain, spans, type Span, type Style } from "./ansi.ts";
import type { LogChunk } from "../contract/rows.ts";

export type Stream = LogChunk["stream"];

/** A run of chunks that is not here. Both ends are seq, inclusive. */
export interface Gap {
  from: number;
  to: number;
}

/** One line. Its number is its place in the store, from 1. */
export interface Line {
  /** What is seen, without escape sequences. */
  text: string;
  stream: Stream;
  /** Milliseconds since the epoch; of the chunk that the line is in. */
  time: number;
}

/** Lines in front of which chunks are missing: the gap, and the index of the line that follows. */
export interface Hole extends Gap {
  before: number;
}

/** A chunk holds whole lines; a part of a very long one has no newline and continues in the next chunk of its stream. */
const lines = (chunk: string): string[] => {
  const split = chunk.split("\n");
  if (split[split.length - 1] === "") split.pop();
  return split;
};

export class LogStore {
  /** Text as it is seen. */
  readonly texts: string[] = [];
  private readonly streams: Stream[] = [];
  private readonly times: number[] = [];
  /** Lines with escape sequences as they came, and the style they begin with. */
  private readonly raw = new Map<number, { text: string; style: Style }>();
  private style: Style = PLAIN;
  /** Chunks behind a gap that may still be filled. */
  private readonly waiting = new Map<number, LogChunk>();
  /** Chunks that are in `texts`, to make the lines again where a late chunk has its place among them. */
  private readonly placed: LogChunk[] = [];
  private readonly present = new Set<number>();
  private next = 1;
  /** Gaps that are known already: the server does not have them. */
  readonly holes: Hole[] = [];
  /** Raised when lines that were there before have moved, so that views start again. */
  generation = 0;

  get length(): number {
    return this.texts.length;
  }

  /** The first seq that is neither here nor given up. */
  get wanted(): number {
    return this.next;
  }

  /** The highest seq that was seen. */
  get highest(): number {
    let highest = this.next - 1;
    for (const seq of this.waiting.keys()) highest = Math.max(highest, seq);
    return highest;
  }

  line(index: number): Line {
    return { text: this.texts[index]!, stream: this.streams[index]!, time: this.times[index]! };
  }

  stream(index: number): Stream {
    return this.streams[index]!;
  }

  time(index: number): number {
    return this.times[index]!;
  }

  /** The styled spans of a line; one plain span for most. */
  spans(index: number): Span[] {
    const raw = this.raw.get(index);
    return raw ? spans(raw.text, raw.style).spans : [{ text: this.texts[index]!, style: PLAIN }];
  }

  /** Takes chunks in any order; a chunk that is here already changes nothing. Answers how many lines came to the end. */
  add(chunks: readonly LogChunk[]): number {
    const before = this.texts.length;
    let late = false;
    for (const chunk of chunks) {
      if (this.present.has(chunk.seq)) continue;
      this.present.add(chunk.seq);
      if (chunk.seq < this.next) {
        late = true;
        this.placed.push(chunk);
      } else {
        this.waiting.set(chunk.seq, chunk);
      }
    }
    if (late) this.rebuild();
    this.drain();
    return this.texts.length - before;
  }

  /** What lies between chunks that are here; the end of the log is not known to the store. */
  gaps(): Gap[] {
    if (this.waiting.size === 0) return [];
    const seqs = [...this.waiting.keys()].sort((a, b) => a - b);
    const found: Gap[] = [];
    let expected = this.next;
    for (const seq of seqs) {
      if (seq > expected) found.push({ from: expected, to: seq - 1 });
      expected = seq + 1;
    }
    return found;
  }

  /** The server does not have the first gap: what lies behind it is shown, and the gap is named. */
  giveUp(): void {
    const gap = this.gaps()[0];
    if (!gap) return;
    this.holes.push({ ...gap, before: this.texts.length });
    this.next = gap.to + 1;
    this.drain();
  }

  /** The log is complete with `count` chunks, and the server does not have those that are not here. */
  endAt(count: number): void {
    while (this.gaps().length > 0) this.giveUp();
    if (count < this.next) return;
    this.holes.push({ from: this.next, to: count, before: this.texts.length });
    this.next = count + 1;
  }

  private drain(): void {
    for (let chunk = this.waiting.get(this.next); chunk; chunk = this.waiting.get(this.next)) {
      this.waiting.delete(this.next);
      this.append(chunk);
      this.placed.push(chunk);
      this.next += 1;
    }
  }

  private append(chunk: LogChunk): void {
    const time = Date.parse(chunk.ts);
    for (const text of lines(chunk.log_chunk)) {
      const styled = this.style !== PLAIN && Object.keys(this.style).length > 0;
      if (styled || hasEscapes(text)) {
        this.raw.set(this.texts.length, { text, style: this.style });
        this.style = spans(text, this.style).end;
      }
      this.texts.push(plain(text));
      this.streams.push(chunk.stream);
      this.times.push(time);
    }
  }

  /** A chunk came for a place that was given up: everything is laid out again. */
  private rebuild(): void {
    const chunks = this.placed.splice(0).sort((a, b) => a.seq - b.seq);
    this.texts.length = 0;
    this.streams.length = 0;
    this.times.length = 0;
    this.raw.clear();
    this.holes.length = 0;
    this.style = PLAIN;
    let expected = 1;
    for (const chunk of chunks) {
      if (chunk.seq > expected) this.holes.push({ from: expected, to: chunk.seq - 1, before: this.texts.length });
      this.append(chunk);
      this.placed.push(chunk);
      expected = chunk.seq + 1;
    }
    if (expected < this.next) this.holes.push({ from: expected, to: this.next - 1, before: this.texts.length });
    this.generation += 1;
  }
}
