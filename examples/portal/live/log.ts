"use client";
// The log of one attempt, for a page: rendered once a frame, however many lines came.

import { useEffect, useMemo, useRef, useState } from "react";
import type { SupabaseClient } from "@supabase/supabase-js";
import { CHUNK_COLUMNS, type LogChunk } from "../contract/rows.ts";
import { LogFeed, type LogSource } from "../log/feed.ts";
import { LogView } from "../log/view.ts";
import { listen } from "./changes.ts";
import { usePortal } from "./session.tsx";

export function sourceOf(client: SupabaseClient, deployment: string, attempt: number): LogSource {
  return {
    async list(after, limit) {
      const { data, error, status } = await client
        .from("deployment_logs").select(CHUNK_COLUMNS)
        .eq("deployment_id", deployment).eq("attempt", attempt).gt("seq", after)
        .order("seq").limit(limit);
      if (error) throw Object.assign(new Error(error.message), { ...error, status });
      return data as unknown as LogChunk[];
    },
    subscribe(listener) {
      return listen<LogChunk>(client, { table: "deployment_logs", filter: `deployment_id=eq.${deployment}`, event: "INSERT" }, {
        row: (chunk) => {
          if (chunk.attempt === attempt) listener.chunk(chunk);
        },
        ready: () => listener.ready(),
        down: () => listener.down(),
      });
    },
  };
}

export interface Log {
  feed: LogFeed;
  view: LogView;
  /** Changes when there is something new to show. */
  tick: number;
}

/** `count` is how many chunks there are in the end, once that is known. */
export function useLog(deployment: string, attempt: number, count: number | null, failed: boolean): Log | null {
  const { client } = usePortal();
  const [tick, setTick] = useState(0);
  const frame = useRef<number | null>(null);
  const log = useMemo(() => {
    if (attempt < 1) return null;
    const feed = new LogFeed(sourceOf(client, deployment, attempt), () => {
      // A hidden tab has no frames: the lines wait in the store.
      frame.current ??= requestAnimationFrame(() => {
        frame.current = null;
        setTick((before) => before + 1);
      });
    });
    return { feed, view: new LogView(feed.store) };
  }, [client, deployment, attempt]);
  useEffect(() => {
    if (!log) return;
    log.feed.start();
    const wake = (): void => void log.feed.read();
    addEventListener("online", wake);
    return () => {
      removeEventListener("online", wake);
      log.feed.stop();
      if (frame.current !== null) cancelAnimationFrame(frame.current);
      frame.current = null;
    };
  }, [log]);
  useEffect(() => {
    if (log && count !== null) log.feed.finish(count);
  }, [log, count]);
  if (!log) return null;
  log.view.setOptions({ columns: log.view.columns, failed });
  log.view.extend();
  return { ...log, tick };
}
