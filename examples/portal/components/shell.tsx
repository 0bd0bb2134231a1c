"use client";
// What surrounds every page of somebody who is signed in.

import Link from "next/link";
import { usePathname, useRouter } from "next/navigation";
import { useEffect, useState, useSyncExternalStore, type ReactNode } from "react";
import { CONTRACT } from "../contract/rows.ts";
import { leave, usePortalState } from "../live/session.tsx";
import { Icon, Logo, type IconName } from "./icon.tsx";
import { Notice, Skeleton } from "./notice.tsx";
import { ThemeButton } from "./theme.tsx";

const PLACES: { href: string; title: string; icon: IconName; also: string[] }[] = [
  { href: "/deployments/", title: "Deployments", icon: "deployments", also: ["/deployment/"] },
  { href: "/stacks/", title: "Stacks", icon: "stacks", also: [] },
  { href: "/clusters/", title: "Clusters", icon: "clusters", also: ["/cluster/"] },
];

export function Shell({ children, title }: { children: ReactNode; title: string }) {
  const portal = usePortalState();
  const router = useRouter();
  const signedOut = portal.state === "ready" && portal.session === null;
  useEffect(() => {
    document.title = `${title} · Tendril`;
  }, [title]);
  useEffect(() => {
    if (!signedOut) return;
    const here = location.pathname + location.search + location.hash;
    router.replace(here === "/" || sessionStorage.getItem("tendril-leaving") ? "/sign-in/" : `/sign-in/?next=${encodeURIComponent(here)}`);
  }, [signedOut, router]);

  if (portal.state === "broken") {
    return (
      <main className="alone">
        <Notice tone="bad" title="This portal is not configured.">
          {portal.reason}. Put a file config.json beside index.html: {`{"supabaseUrl": "…", "publishableKey": "…"}`}.
        </Notice>
      </main>
    );
  }
  const ready = portal.state === "ready" && portal.session !== null && portal.contract !== null;
  return (
    <div className="shell">
      <a className="skip" href="#main">Skip to content</a>
      <Sidebar email={portal.state === "ready" ? portal.session?.user.email ?? null : null} onLeave={() => portal.state === "ready" && void leave(portal.client)} />
      <div className="page">
        <Connection />
        <main id="main" tabIndex={-1}>{ready ? (portal.contract! < CONTRACT ? <OldDatabase contract={portal.contract!} /> : children) : <Skeleton />}</main>
      </div>
    </div>
  );
}

const OldDatabase = ({ contract }: { contract: number }) => (
  <Notice tone="bad" title="The database is older than this portal.">It holds contract {contract}; the portal needs {CONTRACT}. Apply the migrations of the project, then reload.</Notice>
);

function Sidebar({ email, onLeave }: { email: string | null; onLeave(): void }) {
  const path = usePathname();
  const at = (place: (typeof PLACES)[number]): boolean => path === place.href || place.also.includes(path);
  return (
    <nav className="sidebar" aria-label="Main">
      <Link href="/deployments/" className="brand"><Logo /> Tendril</Link>
      <Link href="/new/" className="button primary new" aria-current={path === "/new/" ? "page" : undefined}>
        <Icon name="plus" /> <span>New<span className="wide-only"> deployment</span></span>
      </Link>
      <ul>
        {PLACES.map((place) => (
          <li key={place.href}>
            <Link href={place.href} aria-current={at(place) ? "page" : undefined}>
              <Icon name={place.icon} /> <span>{place.title}</span>
            </Link>
          </li>
        ))}
      </ul>
      <div className="sidebar-end">
        <span className="who" title={email ?? ""}>{email}</span>
        <ThemeButton />
        <button type="button" className="button ghost square" onClick={onLeave} aria-label="Sign out" title="Sign out">
          <Icon name="out" />
        </button>
      </div>
    </nav>
  );
}

const online = (): boolean => navigator.onLine;
const onNetwork = (changed: () => void): (() => void) => {
  addEventListener("online", changed);
  addEventListener("offline", changed);
  return () => {
    removeEventListener("online", changed);
    removeEventListener("offline", changed);
  };
};

/** Whether what is seen can be trusted to be of now. */
function Connection() {
  const portal = usePortalState();
  const network = useSyncExternalStore(onNetwork, online, () => true);
  const [cut, setCut] = useState(false);
  const realtime = portal.state === "ready" && portal.session ? portal.client.realtime : null;
  useEffect(() => {
    if (!realtime) return;
    let since: number | null = null;
    const timer = setInterval(() => {
      // A page without channels needs no socket.
      const down = realtime.getChannels().length > 0 && !realtime.isConnected();
      since = down ? since ?? Date.now() : null;
      setCut(since !== null && Date.now() - since > 2500);
    }, 500);
    return () => clearInterval(timer);
  }, [realtime]);
  if (!network) {
    return <Notice tone="warn" title="You are offline.">What you see may be out of date. The page catches up by itself when the network is back.</Notice>;
  }
  if (cut) {
    return <Notice tone="warn" title="Live updates are interrupted.">The page reads again every few seconds until they are back.</Notice>;
  }
  return null;
}
