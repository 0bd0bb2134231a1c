"""The pictures of `grape up` and `grape watch` in examples/grape/README.md: what a real terminal (tmux) shows, as SVG.

    scripts/with-stack.sh python3 scripts/grape-pictures.py      needs tmux, and the programs: cargo build -p grape -p tendril-agent --bins

A local stack, a real agent and real Terraform; kubectl and helm are the stand-ins of the tests, and the template `hello` takes the
place of EKS.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from xml.sax.saxutils import escape

ROOT = pathlib.Path(__file__).resolve().parent.parent
PICTURES = ROOT / "examples/grape/pictures"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
COLUMNS, TIMEOUT = 104, 90

# The sixteen colours, readable on the dark ground below.
COLOURS = ["#3b4252", "#f07178", "#c3e88d", "#ffcb6b", "#82aaff", "#c792ea", "#89ddff", "#d8dee9"]
GROUND, INK, FAINT = "#1b1f27", "#d8dee9", "#7a8394"
CELL_WIDTH, CELL_HEIGHT, MARGIN = 8.4, 19, 16
# Others are collapsed by some viewers.
NO_BREAK = "\u00a0"


def runs(line):
    """Parts of a line with their looks: (column, text, colour, bold, reversed)."""
    look = {"colour": INK, "bold": False, "faint": False, "reversed": False}
    column = 0
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        sequence = re.fullmatch(r"\x1b\[([0-9;]*)m", part)
        if not sequence:
            if part:
                colour = FAINT if look["faint"] and look["colour"] == INK else look["colour"]
                yield column, part, colour, look["bold"], look["reversed"]
                column += len(part)
            continue
        codes = iter([int(code or 0) for code in sequence[1].split(";")])
        for code in codes:
            if code == 38 and next(codes, None) == 5:
                look["colour"] = COLOURS[next(codes, 7) % 8]
            elif code == 0:
                look = {"colour": INK, "bold": False, "faint": False, "reversed": False}
            elif code == 1:
                look["bold"] = True
            elif code == 2:
                look["faint"] = True
            elif code == 7:
                look["reversed"] = True
            elif code == 22:
                look["bold"] = look["faint"] = False
            elif code == 27:
                look["reversed"] = False
            elif 30 <= code <= 37 or 90 <= code <= 97:
                look["colour"] = COLOURS[code % 10]
            elif code == 39:
                look["colour"] = INK


def svg(screen, title):
    """A terminal's screen as an SVG picture."""
    lines = screen.rstrip("\n").split("\n")
    width = COLUMNS * CELL_WIDTH + 2 * MARGIN
    height = len(lines) * CELL_HEIGHT + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        f'<rect width="100%" height="100%" rx="8" fill="{GROUND}"/>',
        '<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, \'DejaVu Sans Mono\', monospace" font-size="14">',
    ]
    for row, line in enumerate(lines):
        top = MARGIN + row * CELL_HEIGHT
        for column, text, colour, bold, is_reversed in runs(line):
            if not text.strip() and not is_reversed:
                continue
            left, length = MARGIN + column * CELL_WIDTH, len(text) * CELL_WIDTH
            if is_reversed:
                parts.append(f'<rect x="{left:.1f}" y="{top}" width="{length:.1f}" height="{CELL_HEIGHT}" fill="{colour}"/>')
                colour = GROUND
            weight = ' font-weight="bold"' if bold else ""
            place = f'x="{left:.1f}" y="{top + 14}" textLength="{length:.1f}"'
            parts.append(f'<text {place} fill="{colour}"{weight}>{escape(text).replace(" ", NO_BREAK)}</text>')
    return "\n".join([*parts, "</g>", "</svg>", ""])


class Terminal:
    """A terminal in tmux, of a server of its own."""

    def __init__(self, environment, rows):
        self.socket = f"grape-pictures-{os.getpid()}"
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", str(COLUMNS), "-y", str(rows), "sh", environment=environment)
        self.tmux("set-option", "-g", "status", "off")
        self.type("PS1='> '; clear")
        self.shows("> ", alone=True)

    def tmux(self, *words, environment=None):
        return subprocess.run(["tmux", "-L", self.socket, *words], check=True, text=True, capture_output=True, env=environment).stdout

    def type(self, text):
        self.tmux("send-keys", text, "Enter")

    def shows(self, *parts, alone=False):
        """Waits until all of it is on the screen (and nothing else is), and answers that with its colours."""
        end = time.monotonic() + TIMEOUT
        while not all(part.strip() == screen.strip() if alone else part in screen for part in parts for screen in [self.tmux("capture-pane", "-p")]):
            if time.monotonic() > end:
                sys.exit(f"in vain: {parts}")
            time.sleep(0.2)
        return self.tmux("capture-pane", "-p", "-e", "-N")

    def close(self):
        self.tmux("kill-server")


def main():
    if not shutil.which("tmux"):
        sys.exit("grape-pictures: tmux is not installed (apt-get install tmux)")
    url, key = os.environ["SUPABASE_URL"], os.environ["SUPABASE_ANON_KEY"]
    home = pathlib.Path(tempfile.mkdtemp(prefix="grape-"))
    stand_in = home / "stand-in"
    stand_in.mkdir()
    (stand_in / "current-context").write_text("vineyard\n")
    tools = [str(ROOT / "examples/grape/tests/stand-ins"), str(TARGET), str(ROOT / ".tools/bin")]
    environment = os.environ | {
        "PATH": ":".join([*tools, os.environ["PATH"]]),
        "SUPABASE_PUBLISHABLE_KEY": key,
        "GRAPE_CONFIG_DIR": str(home / "config"),
        "STAND_IN": str(stand_in),
        "AGENT": str(TARGET / "tendril-agent"),
        "TERM": "xterm-256color",
    }
    environment["TERRAFORM"] = shutil.which("terraform", path=":".join([str(ROOT / ".tools/bin"), os.environ["PATH"]]))
    (stand_in / "templates").symlink_to(ROOT / "templates")
    environment.pop("NO_COLOR", None)

    def grape(*words, given=""):
        done = subprocess.run([TARGET / "grape", *words], input=given, env=environment, cwd=ROOT, text=True, capture_output=True)
        return done.stdout

    account = {"email": "ada@example.com", "password": "correct horse"}
    request = urllib.request.Request(f"{url}/auth/v1/signup", json.dumps(account).encode(), {"apikey": key})
    urllib.request.urlopen(request).close()
    grape("login", "--email", account["email"], "--password-stdin", given=account["password"])
    PICTURES.mkdir(exist_ok=True)
    os.chdir(ROOT)
    agent = None
    try:
        terminal = Terminal(environment, 14)
        terminal.type("grape up prod --template hello --yes")
        screen = terminal.shows("Cluster prod is ONLINE", "deploy hello")
        (PICTURES / "up.svg").write_text(svg(screen, "grape up brings a cluster online, step by step"))
        terminal.close()
        agent = int((stand_in / "agent.pid").read_text())

        hello = ["deploy", "hello", "--templates-dir", "templates", "--cluster", "prod"]
        grape(*hello, "--stack", "staging", "--var", "name=Ada")
        grape(*hello, "--stack", "prod", "--var", "name=Ada", "--var", "greeting=H3llo")
        grape(*hello, "--stack", "prod", "--var", "name=Ada", "--approval", "--until", "approval")
        grape(*hello, "--stack", "load", "--var", "name=Ada", "--var", "lines=20000", "--detach")
        terminal = Terminal(environment, 22)
        terminal.type("grape watch")
        screen = terminal.shows("APPROVAL", "SUCCESS", "FAILED", "APPLY", "live")
        (PICTURES / "watch.svg").write_text(svg(screen, "grape watch: clusters and deployments, live"))
        terminal.close()
    finally:
        if agent:
            os.kill(agent, 15)
        shutil.rmtree(home, ignore_errors=True)
    print("written:", *sorted(path.relative_to(ROOT).as_posix() for path in PICTURES.glob("*.svg")))


main()
