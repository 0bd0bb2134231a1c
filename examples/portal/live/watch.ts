// A set of rows that follows the database: list, listen, and list again after each interruption.

import type { SupabaseClient } from "@supabase/supabase-js";
import type { ServerError } from "../contract/problem.ts";
import { listen } from "./changes.ts";

export interface WatchSpec<T> {
  table: string;
  columns: string;
  /** What makes a row the same row. */
  key(row: T): string;
  /** Equality conditions; the first is Realtime's filter too. */
  equal?: { column: keyof T & string; value: string }[];
  order: { column: keyof T & string; ascending: boolean };
  limit?: number;
  /** Fetch all pages, beyond the 1,000 rows of one answer. */
  all?: boolean;
  /** A table that Realtime does not publish is read again and again. */
  unpublished?: boolean;
}

export interface Watched<T> {
  rows: T[] | null;
  error: ServerError | null;
  connection: "connecting" | "live" | "polling";
}

/** Between two reads while nothing is pushed, of a table that never is, and while all is well. */
const POLL = 3000;
const UNPUBLISHED = 5000;
const SAFETY = 30_000;
const PAGE = 1000;

export class Watch<T extends object> {
  state: Watched<T> = { rows: null, error: null, connection: "connecting" };
  private readonly rows = new Map<string, T>();
  private readonly client: SupabaseClient;
  private readonly spec: WatchSpec<T>;
  private readonly changed: (state: Watched<T>) => void;
  private unlisten: (() => void) | null = null;
  private timer: ReturnType<typeof setTimeout> | null = null;
  private reading = false;
  private again = false;
  private stopped = false;
  /** What was pushed while a list was on its way: it may be newer than the list. */
  private pushed: Map<string, T | null> | null = null;

  constructor(client: SupabaseClient, spec: WatchSpec<T>, changed: (state: Watched<T>) => void) {
    this.client = client;
    this.spec = spec;
    this.changed = changed;
  }

  start(): void {
    const first = this.spec.equal?.[0];
    if (!this.spec.unpublished) {
      this.unlisten = listen<T>(
        this.client,
        { table: this.spec.table, ...(first ? { filter: `${first.column}=eq.${first.value}` } : {}) },
        {
          row: (row) => this.push(this.spec.key(row), row),
          gone: (old) => this.push(this.spec.key(old as T), null),
          ready: () => {
            this.set({ connection: "live" });
            this.read();
          },
          down: () => {
            this.set({ connection: "polling" });
            this.schedule(POLL);
          },
        },
      );
    }
    globalThis.addEventListener?.("online", this.wake);
    globalThis.document?.addEventListener("visibilitychange", this.wake);
    this.read();
  }

  stop(): void {
    this.stopped = true;
    this.unlisten?.();
    if (this.timer) clearTimeout(this.timer);
    globalThis.removeEventListener?.("online", this.wake);
    globalThis.document?.removeEventListener("visibilitychange", this.wake);
  }

  /** Reads again, now. */
  read = (): void => {
    if (this.reading) {
      this.again = true;
      return;
    }
    this.reading = true;
    this.pushed = new Map();
    void this.list().then(() => {
      this.reading = false;
      this.pushed = null;
      if (this.stopped) return;
      if (this.again) {
        this.again = false;
        this.read();
      } else {
        this.schedule(this.state.error ? POLL : this.spec.unpublished ? UNPUBLISHED : this.state.connection === "live" ? SAFETY : POLL);
      }
    });
  };

  /** Puts in a row that this page has just written, before Realtime delivers it. */
  put(row: T): void {
    this.push(this.spec.key(row), { ...this.rows.get(this.spec.key(row)), ...row });
  }

  private readonly wake = (): void => {
    if (globalThis.document?.visibilityState !== "hidden") this.read();
  };

  private async list(): Promise<void> {
    const { spec } = this;
    const found: T[] = [];
    for (let from = 0; ; from += PAGE) {
      let query = this.client.from(spec.table).select(spec.columns as "*");
      for (const { column, value } of spec.equal ?? []) query = query.eq(column as string, value);
      const size = spec.all ? PAGE : spec.limit ?? PAGE;
      const { data, error, status } = await query.order(spec.order.column as string, { ascending: spec.order.ascending }).range(from, from + size - 1);
      if (this.stopped) return;
      if (error) {
        this.set({ error: { ...error, status } });
        return;
      }
      found.push(...(data as unknown as T[]));
      if (!spec.all || data.length < PAGE) break;
    }
    this.rows.clear();
    for (const row of found) this.rows.set(spec.key(row), row);
    for (const [key, row] of this.pushed ?? []) this.apply(key, row);
    this.show({ error: null });
  }

  private push(key: string, row: T | null): void {
    if (this.stopped) return;
    this.pushed?.set(key, row);
    this.apply(key, row);
    if (this.state.rows !== null) this.show({});
  }

  private apply(key: string, row: T | null): void {
    const fits = row !== null && (this.spec.equal ?? []).every(({ column, value }) => String(row[column]) === value);
    // A change may leave out long values that did not change: what is known of them stays.
    if (fits) this.rows.set(key, { ...this.rows.get(key), ...row });
    else this.rows.delete(key);
  }

  private show(state: Partial<Watched<T>>): void {
    const { column, ascending } = this.spec.order;
    const sign = ascending ? 1 : -1;
    const rows = [...this.rows.values()].sort((a, b) => (a[column] < b[column] ? -sign : a[column] > b[column] ? sign : 0));
    this.set({ ...state, rows });
  }

  private schedule(after: number): void {
    if (this.stopped) return;
    if (this.timer) clearTimeout(this.timer);
    this.timer = setTimeout(this.read, after);
  }

  private set(state: Partial<Watched<T>>): void {
    this.state = { ...this.state, ...state };
    if (!this.stopped) this.changed(this.state);
  }
}
