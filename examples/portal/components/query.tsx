"use client";
import { useSearchParams } from "next/navigation";
import { Suspense, type ReactNode } from "react";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** A page that is about the row that `?id=` names. */
export const WithId = ({ children }: { children(id: string): ReactNode }) => (
  <Suspense>
    <Id>{children}</Id>
  </Suspense>
);

function Id({ children }: { children(id: string): ReactNode }) {
  const id = useSearchParams().get("id") ?? "";
  // What is no id cannot exist: the page shows that without a request.
  return children(UUID.test(id) ? id.toLowerCase() : "00000000-0000-0000-0000-000000000000");
}
