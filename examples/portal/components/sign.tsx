"use client";
// Sign-in and sign-up: the same form with other labels.

import Link from "next/link";
import { useRouter, useSearchParams } from "next/navigation";
import { Suspense, useEffect, useState, type FormEvent } from "react";
import { problem, type Problem } from "../contract/problem.ts";
import { arrive, usePortalState } from "../live/session.tsx";
import { Logo } from "./icon.tsx";
import { Notice, ProblemNotice } from "./notice.tsx";
import { ThemeButton } from "./theme.tsx";

export type SignKind = "in" | "up";

/** Only a path of this portal: a link must not lead elsewhere after the sign-in. */
export const safeNext = (next: string | null): string =>
  next !== null && /^\/(?![/\\])/.test(next) ? next : "/deployments/";

export const Sign = ({ kind }: { kind: SignKind }) => (
  <Suspense>
    <SignForm kind={kind} />
  </Suspense>
);

function SignForm({ kind }: { kind: SignKind }) {
  const portal = usePortalState();
  const router = useRouter();
  const search = useSearchParams();
  const next = safeNext(search.get("next"));
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const [busy, setBusy] = useState(false);
  const [found, setFound] = useState<Problem | null>(null);
  const [mail, setMail] = useState(false);
  const signedIn = portal.state === "ready" && portal.session !== null;
  useEffect(() => {
    document.title = `${kind === "in" ? "Sign in" : "Sign up"} · Tendril`;
  }, [kind]);
  useEffect(() => {
    if (signedIn) router.replace(next);
  }, [signedIn, next, router]);

  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    if (portal.state !== "ready") return;
    setBusy(true);
    setFound(null);
    arrive();
    const credentials = { email: email.trim(), password };
    const { data, error } = kind === "in" ? await portal.client.auth.signInWithPassword(credentials) : await portal.client.auth.signUp(credentials);
    setBusy(false);
    if (error) setFound(problem(error));
    else if (!data.session) setMail(true);
  };

  const labels = kind === "in" ? { title: "Sign in to Tendril", button: "Sign in" } : { title: "Create your account", button: "Sign up" };
  const suffix = search.get("next") ? `?next=${encodeURIComponent(next)}` : "";
  return (
    <main className="sign-page">
      <div className="sign-theme"><ThemeButton /></div>
      <div className="sign-card">
        <div className="brand"><Logo /> Tendril</div>
        <h1>{labels.title}</h1>
        {portal.state === "broken" ? <Notice tone="bad" title="This portal is not configured.">{portal.reason}</Notice> : null}
        {portal.state === "ready" && portal.ended && !found ? <Notice tone="warn" title="Your session has ended.">Sign in again; you will come back to where you were.</Notice> : null}
        {mail ? <Notice tone="good" title="Look into your mailbox.">We sent a link to {email}. Follow it to finish.</Notice> : null}
        {found ? <ProblemNotice problem={found} /> : null}
        <form onSubmit={(event) => void submit(event)}>
          <label className="field">
            <span className="field-title">Email</span>
            <input type="email" name="email" autoComplete="email" required value={email} onChange={(event) => setEmail(event.target.value)} />
          </label>
          <label className="field">
            <span className="field-title">Password</span>
            <input
              type="password" name="password" required minLength={kind === "up" ? 8 : 1} value={password}
              autoComplete={kind === "in" ? "current-password" : "new-password"} onChange={(event) => setPassword(event.target.value)}
            />
            {kind === "up" ? <span className="field-hint">At least 8 characters.</span> : null}
          </label>
          <button type="submit" className="button primary block" disabled={busy || portal.state !== "ready"}>{busy ? "One moment…" : labels.button}</button>
        </form>
        <p className="sign-other">
          {kind === "in" ? <>New here? <Link href={`/sign-up/${suffix}`}>Create an account</Link></> : <>You have an account? <Link href={`/sign-in/${suffix}`}>Sign in</Link></>}
        </p>
      </div>
    </main>
  );
}
