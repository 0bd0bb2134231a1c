"use client";
import { useEffect, useState } from "react";
import { Icon } from "./icon.tsx";

export function CopyButton({ text, label = "Copy" }: { text: string | (() => string); label?: string }) {
  const [done, setDone] = useState<"no" | "yes" | "failed">("no");
  useEffect(() => {
    if (done === "no") return;
    const timer = setTimeout(() => setDone("no"), 2000);
    return () => clearTimeout(timer);
  }, [done]);
  const copy = (): void => {
    navigator.clipboard.writeText(typeof text === "string" ? text : text()).then(() => setDone("yes"), () => setDone("failed"));
  };
  return (
    <button type="button" className="button small" onClick={copy}>
      <Icon name={done === "yes" ? "check" : "copy"} />
      <span aria-live="polite">{done === "yes" ? "Copied" : done === "failed" ? "Not allowed here" : label}</span>
    </button>
  );
}

/** Lines to paste into a shell. */
export function Shell({ text, label }: { text: string; label: string }) {
  return (
    <div className="shell-lines">
      <pre tabIndex={0} role="region" aria-label={label}>{text}</pre>
      <CopyButton text={text} />
    </div>
  );
}
