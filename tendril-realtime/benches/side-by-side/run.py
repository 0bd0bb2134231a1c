#!/usr/bin/env python3
"""Builds everything, runs all clients in alternating rounds, and prints one Markdown table.

    ./run.py                     everything, about 12 minutes after the first build
    ./run.py --rounds 1 --quick  a look
    ./run.py --only tendril limit --scenario flood
    ./run.py --scenario faults   only the scoreboard: each client and each fault, about 8 minutes
    ./run.py --check             fails where tendril-realtime misses a bound

The server is pinned to one core and the client to another, so two cores are needed and enough.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
RELEASE = HERE / "target" / "release"
PYTHON = HERE / "target" / "python"
CLIENT_CORE, SERVER_CORE = "0", "1"
STALL_S = 35
# `--check` fails above these.
CPU_BOUND, STALL_MIB_BOUND = 1.1, 24
CUTS = 5


@dataclass(frozen=True)
class Client:
    name: str
    label: str
    command: tuple
    row: str
    # How its heartbeat interval may be set for the stalled run, in seconds.
    heartbeat: int = 2
    # Divides the number of events of the throughput runs.
    slower: int = 1
    is_library: bool = True


CLIENTS = [
    Client("limit", "the limit: bare tokio-tungstenite", (RELEASE / "bench-limit",), "typed", is_library=False),
    Client("tendril", "**tendril-realtime**", (RELEASE / "client-tendril",), "typed"),
    Client("js", "realtime-js 2.119.1", ("node", "--expose-gc", HERE / "clients/realtime-js/client.mjs"), "object"),
    Client("scr", "supabase-client-realtime 0.2.2", (RELEASE / "client-supabase-client-realtime",), "`Value`, then typed"),
    Client("sdk", "rust_supabase_sdk 0.4.4", (RELEASE / "client-rust-supabase-sdk",), "`Value`, then typed", heartbeat=30),
    Client("rp", "rp-supabase-realtime 0.12.0", (RELEASE / "client-rp-supabase-realtime",), "typed"),
    Client("py", "realtime-py 2.34.1", (PYTHON / "bin/python", HERE / "clients/realtime-py/client.py"), "dict", heartbeat=15, slower=10),
]

PACKAGES = ["bench-server", "bench-faults", "bench-limit", "client-tendril", "client-rp-supabase-realtime", "client-supabase-client-realtime", "client-rust-supabase-sdk"]


def build():
    # One at a time: built together, each client would get the features that the others ask of shared crates.
    for package in PACKAGES:
        run_or_warn(["cargo", "build", "--release", "--quiet", "-p", package], HERE)
    run_or_warn(["npm", "ci", "--no-audit", "--no-fund", "--silent"], HERE / "clients/realtime-js")
    if not PYTHON.exists():
        run_or_warn([sys.executable, "-m", "venv", str(PYTHON)], HERE)
    run_or_warn([str(PYTHON / "bin/pip"), "install", "--quiet", "-r", "clients/realtime-py/requirements.txt"], HERE)


def run_or_warn(command, directory):
    try:
        subprocess.run(command, cwd=directory, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"not built: {error}", file=sys.stderr)


@dataclass
class Run:
    result: dict | None
    # (what happened, milliseconds since the server's start)
    notes: list = field(default_factory=list)
    error: str = ""


def run(client, *, events, rate=0, cut_every=0, warm_up=0, channels=1, stall_s=0, heartbeat_s=25, deadline_s=60):
    server = subprocess.Popen(
        ["taskset", "-c", SERVER_CORE, RELEASE / "bench-server", str(events), str(rate), str(cut_every)],
        stdout=subprocess.PIPE, text=True,
    )
    try:
        port = server.stdout.readline().split()[1]
        environment = os.environ | {
            "BENCH_URL": f"http://127.0.0.1:{port}",
            "BENCH_EVENTS": str(events),
            "BENCH_WARM_UP": str(warm_up),
            "BENCH_CHANNELS": str(channels),
            "BENCH_STALL_MS": str(stall_s * 1000),
            "BENCH_HEARTBEAT_MS": str(heartbeat_s * 1000),
            "BENCH_DEADLINE_MS": str(deadline_s * 1000),
        }
        command = ["taskset", "-c", CLIENT_CORE, *map(str, client.command)]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=deadline_s + 60, check=False)
            lines = done.stdout.strip().splitlines()
            result = json.loads(lines[-1]) if lines else None
            error = "" if result else done.stderr.strip()[-300:]
        except (OSError, subprocess.TimeoutExpired) as failure:
            result, error = None, str(failure)
    finally:
        server.terminate()
        rest, _ = server.communicate()
    notes = [(line.split()[0], int(line.split()[1])) for line in rest.splitlines() if len(line.split()) == 2]
    return Run(result, notes, error)


def flood(client, quick):
    events = (40_000 if quick else 220_000) // client.slower
    outcome = run(client, events=events, warm_up=events // 11)
    result = outcome.result
    if not result or result["seen"] < events:
        return None, outcome
    return {
        "cpu_us": result["cpu_us"] / result["timed"],
        "per_s": result["timed"] / (result["wall_us"] / 1e6),
        "peak_mib": result["peak_kib"] / 1024,
        "out_of_order": result["out_of_order"],
    }, outcome


def paced(client, quick):
    seconds = 3 if quick else 10
    outcome = run(client, events=1000 * (seconds + 1), rate=1000, warm_up=1000)
    result = outcome.result
    if not result or result["timed"] <= 0:
        return None, outcome
    latencies = sorted(result["latencies_us"][-result["timed"]:])
    return {
        "p50_ms": latencies[len(latencies) // 2] / 1000,
        "p99_ms": latencies[len(latencies) * 99 // 100] / 1000,
        "cpu_us": result["cpu_us"] / result["timed"],
    }, outcome


def cut(client, quick):
    cuts = 2 if quick else CUTS
    outcome = run(client, events=500 * (cuts + 1), rate=1000, cut_every=500, deadline_s=90)
    result = outcome.result
    if not result:
        return None, outcome
    # The first row after a cut carries the time of the cut: the longest waits of the run are the recoveries.
    waits = sorted(result["latencies_us"])[-cuts:] if result["seen"] > 500 else []
    happened = len([what for what, _ in outcome.notes if what == "cut"])
    return {"waits_s": [wait / 1e6 for wait in waits[-happened:]], "seen": result["seen"], "cuts": happened, "all": cuts,
            "complete": result["seen"] >= 500 * (cuts + 1), "joins": len([what for what, _ in outcome.notes if what == "joined"])}, outcome


def idle(client, _quick):
    outcome = run(client, events=0, channels=100)
    result = outcome.result
    if not result or len(result["resident_kib"]) < 2:
        return None, outcome
    one, hundred = result["resident_kib"][0], result["resident_kib"][-1]
    connections = len([what for what, _ in outcome.notes if what == "connected"])
    return {"kib": (hundred - one) / 99, "one_mib": one / 1024, "connections": connections}, outcome


def stall(client, quick):
    pause = 8 if quick else STALL_S
    heartbeat = client.heartbeat
    outcome = run(client, events=10**7, rate=2000, warm_up=500, stall_s=pause, heartbeat_s=heartbeat, deadline_s=pause + 30)
    result = outcome.result
    if not result or len(result["resident_kib"]) < 2:
        return None, outcome
    begun = next((at for what, at in outcome.notes if what == "joined"), 0) + 600
    during = [(what, at) for what, at in outcome.notes if begun <= at <= begun + pause * 1000]
    return {
        "grown_mib": (result["resident_kib"][-1] - result["resident_kib"][0]) / 1024,
        "heartbeats": len([what for what, _ in during if what == "heartbeat"]),
        "expected": pause // heartbeat,
        "reconnects": len([what for what, _ in during if what == "connected"]),
        "lagged": result["lagged"],
    }, outcome


SCENARIOS = {"flood": (flood, 5), "paced": (paced, 3), "cut": (cut, 1), "idle": (idle, 1), "stall": (stall, 1)}


def measure(options):
    clients = [client for client in CLIENTS if not options.only or client.name in options.only]
    found = {}
    for scenario, (work, rounds) in SCENARIOS.items():
        if options.scenario and scenario not in options.scenario:
            continue
        for number in range(min(rounds, options.rounds)):
            for client in clients:
                if scenario in ("cut", "idle", "stall") and not client.is_library:
                    continue
                values, outcome = work(client, options.quick)
                if values is None:
                    print(f"{scenario} {client.name}: failed: {outcome.error or outcome.result}", file=sys.stderr)
                else:
                    found.setdefault((scenario, client.name), []).append(values)
                    print(f"{scenario} {number + 1} {client.name}: {values}", file=sys.stderr)
                time.sleep(0.2)
    return clients, found


def faults(clients):
    """What each client makes of each fault: name -> scenario -> what it failed at, or None."""
    scores = {}
    for client in clients:
        if not client.is_library:
            continue
        command = [str(RELEASE / "bench-faults"), str(client.heartbeat), *map(str, client.command)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
        except (OSError, subprocess.TimeoutExpired) as failure:
            print(f"faults {client.name}: failed: {failure}", file=sys.stderr)
            continue
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        scores[client.name] = {line["scenario"]: line["failure"] for line in lines}
        print(f"faults {client.name}: {sum(failure is None for failure in scores[client.name].values())} of {len(lines)}", file=sys.stderr)
    return scores


def scoreboard(clients, scores):
    clients = [client for client in clients if client.name in scores]
    scenarios = list(dict.fromkeys(name for client in clients for name in scores[client.name]))
    lines = ["| what goes wrong | " + " | ".join(client.label for client in clients) + " |", "|---" * (len(clients) + 1) + "|"]
    for scenario in scenarios:
        cells = [scores[client.name].get(scenario, "not played") for client in clients]
        lines.append(f"| {scenario} | " + " | ".join("yes" if cell is None else f"no: {cell}" for cell in cells) + " |")
    sums = [sum(failure is None for failure in scores[client.name].values()) for client in clients]
    lines.append("| **as it should** | " + " | ".join(f"**{number} of {len(scenarios)}**" for number in sums) + " |")
    return "\n".join(lines)


def table(clients, found):
    def spread(scenario, key, form, best=min):
        def cell(client):
            values = [run[key] for run in found.get((scenario, client.name), [])]
            if not values:
                return "–" if not client.is_library else "failed"
            return f"{form(best(values))} / {form(statistics.median(values))}"
        return cell

    def once(scenario, form):
        def cell(client):
            values = found.get((scenario, client.name))
            if not values:
                return "–" if not client.is_library else "failed"
            return form(values[-1])
        return cell

    def against(name):
        def cell(client):
            mine, theirs = (
                [run["cpu_us"] for run in found.get(("flood", who), [])] for who in (client.name, name)
            )
            return f"{statistics.median(mine) / statistics.median(theirs):.2f}" if mine and theirs else "–"
        return cell

    def recovery(run):
        if not run["waits_s"]:
            return "never"
        waits = run["waits_s"]
        text = f"{statistics.median(waits):.2f} s ({max(waits):.2f} s)"
        return text if run["complete"] else f"{text}, then no rows: {run['seen']} of {500 * (run['all'] + 1)}"

    def stalled(run):
        text = f"{run['grown_mib']:+.1f} MiB; {run['heartbeats']} of {run['expected']} heartbeats"
        if run["reconnects"]:
            text += f"; {run['reconnects']} reconnects"
        if run["lagged"]:
            text += f"; reported: {run['lagged']:,} lost"
        return text

    rows = [
        ("row is given as", lambda client: client.row),
        ("CPU per event, flood (µs)", spread("flood", "cpu_us", "{:.2f}".format)),
        ("… times the limit's (median)", against("limit")),
        ("events/s, flood", spread("flood", "per_s", "{:,.0f}".format, max)),
        ("peak RSS, flood (MiB)", spread("flood", "peak_mib", "{:.1f}".format)),
        ("CPU per event at 1,000/s (µs)", spread("paced", "cpu_us", "{:.1f}".format)),
        ("latency p50 at 1,000/s (ms)", spread("paced", "p50_ms", "{:.3f}".format)),
        ("latency p99 at 1,000/s (ms)", spread("paced", "p99_ms", "{:.3f}".format)),
        ("RSS with one idle channel (MiB)", once("idle", lambda run: f"{run['one_mib']:.1f}")),
        ("RSS per further idle channel (KiB)", once("idle", lambda run: f"{run['kib']:.1f}")),
        ("rows again after a cut: median (longest)", once("cut", recovery)),
        (f"consumer stalled {STALL_S} s at 2,000/s", once("stall", stalled)),
    ]
    lines = ["| best / median | " + " | ".join(client.label for client in clients) + " |"]
    lines.append("|---" * (len(clients) + 1) + "|")
    lines += [f"| {name} | " + " | ".join(cell(client) for client in clients) + " |" for name, cell in rows]
    return "\n".join(lines)


def missed(found):
    """The bounds of a release that `tendril-realtime` does not keep."""
    def values(scenario, key, name="tendril"):
        return [run[key] for run in found.get((scenario, name), [])]

    mine, limit = values("flood", "cpu_us"), values("flood", "cpu_us", "limit")
    if not mine or not limit:
        yield "flood: not measured for tendril and limit"
    elif statistics.median(mine) / statistics.median(limit) > CPU_BOUND:
        yield f"flood: {statistics.median(mine) / statistics.median(limit):.2f} times the limit's CPU per event; bound: {CPU_BOUND}"
    for run in found.get(("cut", "tendril"), []):
        if not run["complete"]:
            yield f"cut: rows are missing after a reconnect: {run}"
    for run in found.get(("stall", "tendril"), []):
        if run["grown_mib"] > STALL_MIB_BOUND or run["heartbeats"] < run["expected"] - 1 or run["reconnects"]:
            yield f"stall: {run}; bounds: {STALL_MIB_BOUND} MiB, each heartbeat, no reconnect"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the throughput runs (the others need fewer)")
    parser.add_argument("--quick", action="store_true", help="fewer events, shorter pauses")
    parser.add_argument("--only", nargs="+", choices=[client.name for client in CLIENTS])
    parser.add_argument("--scenario", nargs="+", choices=[*SCENARIOS, "faults"])
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--check", action="store_true", help="fail where tendril-realtime misses a bound")
    options = parser.parse_args()
    if not options.no_build:
        build()
    before = os.getloadavg()[0]
    clients, found = measure(options)
    if found:
        print(table(clients, found))
    scores = faults(clients) if not options.scenario or "faults" in options.scenario else {}
    if scores:
        print(f"\n{scoreboard(clients, scores)}")
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}; "
          f"load {before:.1f} before, {os.getloadavg()[0]:.1f} after (two busy cores are the benchmark itself).")
    bounds = list(missed(found)) if options.check and found else []
    if options.check:
        bounds += [f"{scenario}: {failure}" for scenario, failure in scores.get("tendril", {}).items() if failure]
    for bound in bounds:
        print(f"bounds that were missed: {bound}")
    sys.exit(1 if bounds else 0)


if __name__ == "__main__":
    main()
