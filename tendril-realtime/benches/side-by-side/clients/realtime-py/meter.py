"""What meter/src/lib.rs is to the clients in Rust."""

import json
import os
import sys
import time


def _number(name):
    return int(os.environ.get(name, "0"))


URL = os.environ["BENCH_URL"]
CHANNELS = max(1, _number("BENCH_CHANNELS"))
HEARTBEAT = _number("BENCH_HEARTBEAT_MS") / 1000
EVENTS = _number("BENCH_EVENTS")
WARM_UP = _number("BENCH_WARM_UP")
DEADLINE = _number("BENCH_DEADLINE_MS") / 1000
STALL = _number("BENCH_STALL_MS") / 1000


def _kib(field):
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith(field):
                return int(line.split()[1])
    return 0


class Meter:
    def __init__(self):
        self.seen = 0
        self.out_of_order = 0
        self.last_id = 10_000_000
        self.begun = None
        self.ended = None
        self.latencies = []
        self.resident = []

    def row(self, row):
        """A row came: "read", "sleep" or "stop" is next."""
        self.seen += 1
        if row["id"] != self.last_id + 1:
            self.out_of_order += 1
        self.last_id = row["id"]
        if row["sent"] != "0000000000000000":
            self.latencies.append(max(0, time.monotonic_ns() - int(row["sent"])) // 1000)
        if self.seen == WARM_UP:
            self.begun = (time.process_time_ns(), time.monotonic_ns())
            self.weigh()
            if STALL > 0:
                return "sleep"
        return "stop" if self.seen >= EVENTS else "read"

    def weigh(self):
        self.resident.append(_kib("VmRSS:"))

    def end(self):
        self.ended = (time.process_time_ns(), time.monotonic_ns())

    def report(self):
        if self.ended is None:
            self.end()
        begun = self.begun or self.ended
        print(
            json.dumps(
                {
                    "seen": self.seen,
                    "timed": max(0, self.seen - WARM_UP),
                    "cpu_us": (self.ended[0] - begun[0]) // 1000,
                    "wall_us": (self.ended[1] - begun[1]) // 1000,
                    "out_of_order": self.out_of_order,
                    "lagged": 0,
                    "latencies_us": self.latencies,
                    "resident_kib": self.resident,
                    "peak_kib": _kib("VmHWM:"),
                }
            )
        )
        sys.stdout.flush()
        os._exit(0)
