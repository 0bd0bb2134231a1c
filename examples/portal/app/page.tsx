"use client";
import { useRouter } from "next/navigation";
import { useEffect } from "react";
import { Shell } from "../components/shell.tsx";
import { usePortalState } from "../live/session.tsx";

export default function Start() {
  const router = useRouter();
  const portal = usePortalState();
  const signedIn = portal.state === "ready" && portal.session !== null;
  useEffect(() => {
    if (signedIn) router.replace("/deployments/");
  }, [signedIn, router]);
  return <Shell title="Start">{null}</Shell>;
}
