"use client";

import { useEffect, useRef, useState } from "react";
import type { ServerError } from "../contract/problem.ts";
import { usePortal } from "./session.tsx";
import { Watch, type Watched, type WatchSpec } from "./watch.ts";

const EMPTY: Watched<never> = { rows: null, error: null, connection: "connecting" };

/** Rows that follow the database. A null spec watches nothing; a new `id` means that it is another one. */
export function useWatch<T extends object>(spec: WatchSpec<T> | null, id: string): Watched<T> & { read(): void; put(row: T): void } {
  const { client, fail } = usePortal();
  const [state, setState] = useState<{ id: string; watched: Watched<T> }>({ id, watched: EMPTY });
  const watch = useRef<Watch<T> | null>(null);
  const wanted = spec === null ? null : id;
  useEffect(() => {
    if (!spec || wanted === null) return;
    const mine = new Watch<T>(client, spec, (watched) => {
      if (watched.error) fail(watched.error as ServerError);
      setState({ id: wanted, watched });
    });
    watch.current = mine;
    mine.start();
    return () => {
      mine.stop();
      watch.current = null;
    };
    // The spec is described by its id.
  }, [client, fail, wanted]);
  const watched = state.id === wanted ? state.watched : (EMPTY as Watched<T>);
  return { ...watched, read: () => watch.current?.read(), put: (row) => watch.current?.put(row) };
}

/** The time, again each `seconds`; so that "12 s ago" stays true. */
export function useNow(seconds = 1): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), seconds * 1000);
    return () => clearInterval(timer);
  }, [seconds]);
  return now;
}

/** A setting that this browser remembers. */
export function useRemembered<T extends string>(name: string, standard: T, allowed: readonly T[]): [T, (value: T) => void] {
  const key = `tendril-${name}`;
  const [value, setValue] = useState<T>(() => {
    const stored = typeof localStorage === "undefined" ? null : localStorage.getItem(key);
    return allowed.includes(stored as T) ? (stored as T) : standard;
  });
  return [
    value,
    (next) => {
      setValue(next);
      try {
        localStorage.setItem(key, next);
      } catch {
        // A private window: it holds for this page.
      }
    },
  ];
}
