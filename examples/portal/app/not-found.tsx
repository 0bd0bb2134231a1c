import Link from "next/link";

export default function NotFound() {
  return (
    <main className="alone">
      <div className="empty">
        <h1>There is no such page.</h1>
        <p>The link may be wrong or old.</p>
        <Link className="button" href="/deployments/">All deployments</Link>
      </div>
    </main>
  );
}
