"use client";

export default function PageError({ error, reset }: { error: Error; reset: () => void }) {
  return (
    <main className="alone">
      <div className="empty">
        <h1>This page has a fault.</h1>
        <p>Nothing of your deployments is lost: they run without this page. If it happens again, report what stands here.</p>
        <pre className="reason">{error.message}</pre>
        <button type="button" className="button" onClick={reset}>Show it again</button>
      </div>
    </main>
  );
}
