"use client";
import { useSyncExternalStore } from "react";
import { Icon } from "./icon.tsx";

// public/theme.js sets the theme before the first paint; this changes it.
const listeners = new Set<() => void>();
const current = (): string => document.documentElement.dataset.theme ?? "light";

function choose(theme: string): void {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("tendril-theme", theme);
  } catch {
    // A private window: it holds for this page.
  }
  for (const changed of listeners) changed();
}

export function ThemeButton() {
  const theme = useSyncExternalStore(
    (changed) => {
      listeners.add(changed);
      return () => listeners.delete(changed);
    },
    current,
    () => "light",
  );
  const other = theme === "dark" ? "light" : "dark";
  return (
    <button type="button" className="button ghost square" onClick={() => choose(other)} aria-label={`Use the ${other} theme`} title={`Use the ${other} theme`}>
      <Icon name={theme === "dark" ? "sun" : "moon"} />
    </button>
  );
}
