"use client";
import "../styles/base.css";
import "../styles/parts.css";

export default function GlobalError({ reset }: { error: Error; reset: () => void }) {
  return (
    <html lang="en">
      <body>
        <main className="alone">
          <div className="empty">
            <h1>This page has a fault.</h1>
            <p>Nothing of your deployments is lost: they run without this page.</p>
            <button type="button" className="button" onClick={reset}>Show it again</button>
          </div>
        </main>
      </body>
    </html>
  );
}
