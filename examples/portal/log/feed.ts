// Completes a store while the log is written: list, subscribe, and re-read by seq. A cut of the connection loses nothing.

import type { LogChunk } from "../contract/rows.ts";
import { LogStore } from "./store.ts";

export interface LogSource {
  /** Chunks with `after` < seq, the first `limit` of them in order. */
  list(after: number, limit: number): Promise<LogChunk[]>;
  /** Calls back for each inserted chunk, and when chunks begin to flow or cease to. Returns how to end it. */
  subscribe(listener: { chunk(chunk: LogChunk): void; ready(): void; down(): void }): () => void;
}

export type Connection = "connecting" | "live" | "polling" | "ended";

export interface FeedState {
  connection: Connection;
  /** Whether the beginning is still being read. */
  loading: boolean;
  error: unknown;
}

export interface FeedTiming {
  /** How long a chunk may be overtaken by the next before it is read: it may be on its way. */
  overtaken: number;
  /** Between two reads while nothing is pushed. */
  poll: number;
  /** Between two reads while all is well: a push that got lost is found. */
  safety: number;
}

const TIMING: FeedTiming = { overtaken: 300, poll: 2000, safety: 15_000 };
/** PostgREST answers 1,000 rows at most; a chunk has up to 16 KiB. */
const PAGE = 500;

export class LogFeed {
  readonly store = new LogStore();
  state: FeedState = { connection: "connecting", loading: true, error: null };
  private readonly source: LogSource;
  private readonly changed: () => void;
  private readonly timing: FeedTiming;
  private unsubscribe: (() => void) | null = null;
  private timer: ReturnType<typeof setTimeout> | null = null;
  private due = Infinity;
  private reading: Promise<void> | null = null;
  private again = false;
  private final: number | null = null;
  private stopped = false;

  constructor(source: LogSource, changed: () => void, timing: Partial<FeedTiming> = {}) {
    this.source = source;
    this.changed = changed;
    this.timing = { ...TIMING, ...timing };
  }

  start(): void {
    this.stopped = false;
    this.unsubscribe = this.source.subscribe({
      chunk: (chunk) => this.take(chunk),
      ready: () => {
        this.set({ connection: "live" });
        // What was written before the subscription was there.
        void this.read();
      },
      down: () => {
        this.set({ connection: "polling" });
        this.wake(this.timing.poll);
      },
    });
    void this.read();
  }

  stop(): void {
    this.stopped = true;
    this.unsubscribe?.();
    if (this.timer) clearTimeout(this.timer);
    this.timer = null;
    this.due = Infinity;
  }

  /** The deployment has ended, and its log with so many chunks. */
  finish(count: number): void {
    if (this.final === count) return;
    this.final = count;
    void this.read();
  }

  /** Reads what the server has beyond what is here. */
  read(): Promise<void> {
    if (this.reading) {
      this.again = true;
      return this.reading;
    }
    this.reading = this.readAll().finally(() => {
      this.reading = null;
      if (this.again && !this.stopped) {
        this.again = false;
        void this.read();
      }
    });
    return this.reading;
  }

  private take(chunk: LogChunk): void {
    if (this.stopped) return;
    this.store.add([chunk]);
    if (this.store.gaps().length > 0) this.wake(this.timing.overtaken);
    this.changed();
  }

  private async readAll(): Promise<void> {
    try {
      for (;;) {
        const after = this.store.wanted - 1;
        const chunks = await this.source.list(after, PAGE);
        if (this.stopped) return;
        this.store.add(chunks);
        // What the server has not, and what lies before something that it has, was never stored: chunks are inserted in order.
        while (chunks.length > 0 && this.store.gaps()[0] && this.store.gaps()[0]!.from <= chunks[chunks.length - 1]!.seq) this.store.giveUp();
        this.changed();
        if (chunks.length < PAGE) break;
      }
      if (this.final !== null) this.store.endAt(this.final);
      this.set({ loading: false, error: null, ...(this.final === null ? {} : { connection: "ended" as const }) });
    } catch (error) {
      if (this.stopped) return;
      this.set({ error });
    }
    this.rest();
  }

  /** When to read next without an event. */
  private rest(): void {
    if (this.stopped || (this.final !== null && this.state.error === null)) return;
    const well = this.state.connection === "live" && this.state.error === null;
    this.wake(well ? this.timing.safety : this.timing.poll);
  }

  private wake(after: number): void {
    const due = Date.now() + after;
    if (this.stopped || (this.timer && this.due <= due)) return;
    if (this.timer) clearTimeout(this.timer);
    this.due = due;
    this.timer = setTimeout(() => {
      this.timer = null;
      this.due = Infinity;
      void this.read();
    }, after);
  }

  private set(state: Partial<FeedState>): void {
    this.state = { ...this.state, ...state };
    this.changed();
  }
}
