"use client";
// Who is signed in to which project, for every page.

import type { Session, SupabaseClient } from "@supabase/supabase-js";
import { createContext, useCallback, useContext, useEffect, useMemo, useState, type ReactNode } from "react";
import type { Project } from "../contract/install.ts";
import { problem, type Problem, type ServerError } from "../contract/problem.ts";
import { connect, loadProject } from "./project.ts";

export interface Portal {
  project: Project;
  client: SupabaseClient;
  session: Session | null;
  /** Why there is no session any more, where there was one. */
  ended: boolean;
  /** The database's contract; null while it is not known. */
  contract: number | null;
  /** Takes an error of any request: an ended session leads to the sign-in. */
  fail(error: ServerError, what?: string): Problem;
}

export type PortalState = { state: "loading" } | { state: "broken"; reason: string } | ({ state: "ready" } & Portal);

const Context = createContext<PortalState>({ state: "loading" });

export function PortalProvider({ children }: { children: ReactNode }) {
  const [connected, setConnected] = useState<{ project: Project; client: SupabaseClient } | null>(null);
  const [reason, setReason] = useState<string | null>(null);
  const [session, setSession] = useState<Session | null | undefined>(undefined);
  const [ended, setEnded] = useState(false);
  const [contract, setContract] = useState<number | null>(null);

  useEffect(() => {
    let subscription: { unsubscribe(): void } | null = null;
    let gone = false;
    loadProject().then(
      (project) => {
        if (gone) return;
        const client = connect(project);
        setConnected({ project, client });
        let signedIn = hadSession();
        let requested = false;
        subscription = client.auth.onAuthStateChange((event, next) => {
          if (event === "SIGNED_OUT" || (event === "INITIAL_SESSION" && !next)) setEnded(noteEnded(!leaving() && ((signedIn && !requested) || hasEnded())));
          if (next) {
            signedIn = true;
            requested = false;
            setEnded(noteEnded(false));
          }
          // A refresh gives a new object for the same person: pages need not start again.
          setSession((now) => (now && next && now.user.id === next.user.id ? now : next));
        }).data.subscription;
      },
      (error: unknown) => setReason(error instanceof Error ? error.message : String(error)),
    );
    return () => {
      gone = true;
      subscription?.unsubscribe();
    };
  }, []);

  const client = connected?.client;
  const user = session?.user.id;
  useEffect(() => {
    if (!client || !user) return;
    let gone = false;
    let timer: ReturnType<typeof setTimeout>;
    const ask = (): void => {
      void client.rpc("contract_version").then(({ data, error }) => {
        if (gone) return;
        if (!error) setContract(Number(data));
        // Before contract 2 there is no version.
        else if (error.code === "PGRST202") setContract(1);
        else timer = setTimeout(ask, 2000);
      });
    };
    ask();
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [client, user]);

  const fail = useCallback(
    (error: ServerError, what?: string): Problem => {
      const found = problem(error, what);
      if (found.kind === "session" && client) {
        setEnded(noteEnded(true));
        void client.auth.signOut({ scope: "local" });
      }
      return found;
    },
    [client],
  );

  const value = useMemo<PortalState>(() => {
    if (reason !== null) return { state: "broken", reason };
    if (!connected || session === undefined) return { state: "loading" };
    return { state: "ready", ...connected, session, ended, contract, fail };
  }, [connected, session, ended, contract, reason, fail]);
  return <Context.Provider value={value}>{children}</Context.Provider>;
}

export const usePortalState = (): PortalState => useContext(Context);

/** Of a page inside the shell, which shows nothing before somebody is signed in and the contract is known. */
export function usePortal(): Portal & { contract: number } {
  const state = useContext(Context);
  if (state.state !== "ready" || state.contract === null) throw new Error("outside the shell");
  return { ...state, contract: state.contract };
}

/** The sign-in page may be reloaded, and has to know why it is shown. */
const ENDED = "tendril-ended";
const hasEnded = (): boolean => sessionStorage.getItem(ENDED) !== null;
const noteEnded = (ended: boolean): boolean => {
  if (ended) sessionStorage.setItem(ENDED, "1");
  else sessionStorage.removeItem(ENDED);
  return ended;
};
/** A requested sign-out is no ended session. */
const LEAVING = "tendril-leaving";
const leaving = (): boolean => sessionStorage.getItem(LEAVING) !== null;
export async function leave(client: SupabaseClient): Promise<void> {
  sessionStorage.setItem(LEAVING, "1");
  noteEnded(false);
  // The server may be away: this browser forgets the session all the same.
  const { error } = await client.auth.signOut({ scope: "local" });
  if (error) localStorage.removeItem("tendril-session");
}
export const arrive = (): void => sessionStorage.removeItem(LEAVING);
const hadSession = (): boolean => localStorage.getItem("tendril-session") !== null;
