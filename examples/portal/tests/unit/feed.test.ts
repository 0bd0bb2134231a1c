import assert from "node:assert/strict";
import { test } from "node:test";
import type { LogChunk } from "../../contract/rows.ts";
import { LogFeed, type LogSource } from "../../log/feed.ts";

const chunk = (seq: number): LogChunk => ({ attempt: 1, seq, stream: "stdout", log_chunk: `line ${seq}\n`, ts: "2026-01-01T00:00:00Z" });
const lines = (n: number): string[] => Array.from({ length: n }, (_, i) => `line ${i + 1}`);
/** Waits until the pending requests are answered. */
const answered = async (): Promise<void> => {
  for (let i = 0; i < 20; i++) await Promise.resolve();
};

class Server implements LogSource {
  chunks: LogChunk[] = [];
  listener: Parameters<LogSource["subscribe"]>[0] | null = null;
  lists = 0;
  down = false;
  list(after: number, limit: number): Promise<LogChunk[]> {
    this.lists += 1;
    if (this.down) return Promise.reject(new Error("Failed to fetch"));
    return Promise.resolve(this.chunks.filter((each) => each.seq > after).sort((a, b) => a.seq - b.seq).slice(0, limit));
  }
  subscribe(listener: Parameters<LogSource["subscribe"]>[0]): () => void {
    this.listener = listener;
    return () => {
      this.listener = null;
    };
  }
  write(seq: number, pushed = true): void {
    this.chunks.push(chunk(seq));
    if (pushed) this.listener?.chunk(chunk(seq));
  }
}

test("what was written before, during and after the subscription is there once", async () => {
  const server = new Server();
  for (let seq = 1; seq <= 1200; seq++) server.chunks.push(chunk(seq));
  const feed = new LogFeed(server, () => {});
  feed.start();
  server.write(1201);
  await answered();
  server.listener!.ready();
  server.write(1202);
  await answered();
  assert.deepEqual(feed.store.texts, lines(1202));
  assert.equal(feed.state.connection, "live");
  feed.stop();
});

test("a cut of the connection loses nothing, and leaves no gap behind", async () => {
  const server = new Server();
  const feed = new LogFeed(server, () => {});
  feed.start();
  server.listener!.ready();
  server.write(1);
  await answered();
  server.listener!.down();
  assert.equal(feed.state.connection, "polling");
  for (let seq = 2; seq <= 9; seq++) server.write(seq, false);
  server.listener!.ready();
  server.write(10);
  await answered();
  assert.deepEqual(feed.store.texts, lines(10));
  assert.deepEqual(feed.store.holes, []);
  feed.stop();
});

test("while nothing is pushed the log is read again and again", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const server = new Server();
  const feed = new LogFeed(server, () => {});
  feed.start();
  server.listener!.down();
  await answered();
  server.write(1, false);
  t.mock.timers.tick(2000);
  await answered();
  assert.deepEqual(feed.store.texts, lines(1));
  feed.stop();
});

test("a pushed chunk that was overtaken is read, and named only where the server has it not", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const server = new Server();
  const feed = new LogFeed(server, () => {});
  feed.start();
  server.listener!.ready();
  await answered();
  server.write(1);
  server.write(2, false);
  server.write(3);
  assert.deepEqual(feed.store.texts, lines(1), "nothing is shown behind a gap");
  t.mock.timers.tick(300);
  await answered();
  assert.deepEqual(feed.store.texts, lines(3));
  assert.deepEqual(feed.store.holes, []);
  server.write(5);
  t.mock.timers.tick(300);
  await answered();
  assert.deepEqual(feed.store.holes.map(({ from, to }) => [from, to]), [[4, 4]]);
  feed.stop();
});

test("the end is the end: all chunks are there or named, and nothing is requested any more", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const server = new Server();
  for (const seq of [1, 2, 3]) server.chunks.push(chunk(seq));
  const feed = new LogFeed(server, () => {});
  feed.start();
  feed.finish(4);
  await answered();
  assert.equal(feed.state.connection, "ended");
  assert.deepEqual(feed.store.holes.map(({ from, to }) => [from, to]), [[4, 4]]);
  const before = server.lists;
  t.mock.timers.tick(120_000);
  await answered();
  assert.equal(server.lists, before);
});

test("a read that fails is tried again, and the feed shows it meanwhile", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const server = new Server();
  server.down = true;
  const feed = new LogFeed(server, () => {});
  feed.start();
  await answered();
  assert.ok(feed.state.error);
  server.down = false;
  server.write(1, false);
  t.mock.timers.tick(2000);
  await answered();
  assert.equal(feed.state.error, null);
  assert.deepEqual(feed.store.texts, lines(1));
  feed.stop();
});
