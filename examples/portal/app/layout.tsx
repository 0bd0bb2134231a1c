import type { Metadata, Viewport } from "next";
import type { ReactNode } from "react";
import { PortalProvider } from "../live/session.tsx";
import "../styles/base.css";
import "../styles/shell.css";
import "../styles/parts.css";
import "../styles/form.css";
import "../styles/deployment.css";
import "../styles/log.css";

export const metadata: Metadata = { title: "Tendril", description: "Infrastructure in your own clusters, deployed and watched from here." };
export const viewport: Viewport = {
  width: "device-width",
  initialScale: 1,
  themeColor: [
    { media: "(prefers-color-scheme: light)", color: "#ffffff" },
    { media: "(prefers-color-scheme: dark)", color: "#0e1113" },
  ],
};

export default function Layout({ children }: { children: ReactNode }) {
  return (
    <html lang="en" suppressHydrationWarning>
      <head>
        {/* Before the first paint, or the page flashes. */}
        <script src="/theme.js" />
      </head>
      <body>
        <PortalProvider>{children}</PortalProvider>
      </body>
    </html>
  );
}
