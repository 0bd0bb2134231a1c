// Row changes of Realtime. "Ready" means that rows really flow: the join was answered and the server has confirmed it.

import type { SupabaseClient } from "@supabase/supabase-js";

export interface ChangeListener<T> {
  row(row: T, event: "INSERT" | "UPDATE"): void;
  gone?(old: Partial<T>): void;
  ready(): void;
  down(): void;
}

export interface ChangeFilter {
  table: string;
  /** One condition, such as `deployment_id=eq.…`; the row policies hold anyway. */
  filter?: string;
  event?: "INSERT" | "*";
}

let counter = 0;

/** Listens until the returned function is called. */
export function listen<T extends object>(client: SupabaseClient, what: ChangeFilter, listener: ChangeListener<T>): () => void {
  let ended = false;
  const channel = client.channel(`portal-${what.table}-${++counter}`);
  channel
    .on(
      "postgres_changes",
      { event: what.event ?? "*", schema: "public", table: what.table, ...(what.filter ? { filter: what.filter } : {}) } as { event: "*"; schema: string },
      (change: { eventType: string; new: object; old: object }) => {
        if (ended) return;
        if (change.eventType === "DELETE") listener.gone?.(change.old as Partial<T>);
        else listener.row(change.new as T, change.eventType as "INSERT" | "UPDATE");
      },
    )
    .on("system", {}, (message: { status?: string; extension?: string }) => {
      if (ended || message.extension !== "postgres_changes") return;
      if (message.status === "ok") listener.ready();
      else listener.down();
    })
    .subscribe((status) => {
      if (!ended && (status === "CHANNEL_ERROR" || status === "TIMED_OUT" || status === "CLOSED")) listener.down();
    });
  return () => {
    ended = true;
    void client.removeChannel(channel);
  };
}
