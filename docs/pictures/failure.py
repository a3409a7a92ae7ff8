"""Draw failure.svg: one failing run, as a terminal shows it.

    python docs/pictures/failure.py

The run is real: the command runs on a pseudo-terminal, and its output is drawn with its colours.
"""

from __future__ import annotations

import html
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
COMMAND = ("harness", "play", "hello.chat", "--app", "leaky:serve")
COLUMN, LINE, MARGIN, BAR = 8.43, 20, 18, 34
PAPER, TEXT, QUIET = "#1c1f26", "#dfe2e7", "#8b919b"
COLOURS = {"32": "#6fcf8a", "31": "#ff7b72", "33": "#e0b34c", "36": "#62c4e0"}
SGR = re.compile(r"\x1b\[([0-9;]*)m")
WIPED = re.compile(r"^.*\r\x1b\[K")


def on_a_terminal(command: tuple[str, ...]) -> str:
    """The output of the command on a terminal."""
    ours, theirs = pty.openpty()
    paths = [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        (sys.executable, "-m", *command),
        cwd=HERE,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = bytearray()
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the command has closed the terminal
            break
        if not chunk:
            break
        written += chunk
    os.close(ours)
    if process.wait() != 1:
        sys.exit(f"expected a failing run, got exit code {process.returncode}:\n{written.decode()}")
    return written.decode()


def spans(line: str) -> list[tuple[str, str]]:
    """The line as (style, text)."""
    line = WIPED.sub("", line)
    out, style, at = [], "", 0
    for found in SGR.finditer(line):
        out.append((style, line[at : found.start()]))
        style, at = _style(found[1]), found.end()
    out.append((style, line[at:]))
    return [(style, text) for style, text in out if text]


def _style(codes: str) -> str:
    parts = []
    for code in codes.split(";"):
        if code == "1":
            parts.append("font-weight:700")
        elif code == "2":
            parts.append(f"fill:{QUIET}")
        elif code in COLOURS:
            parts.append(f"fill:{COLOURS[code]}")
    return ";".join(parts)


def drawn(lines: list[str]) -> str:
    """The terminal as SVG."""
    shown = [[("fill:" + COLOURS["32"], "$ "), ("", " ".join(COMMAND))], *(spans(line) for line in lines)]
    columns = max(sum(len(text) for _, text in line) for line in shown)
    width, height = int(columns * COLUMN + 2 * MARGIN), BAR + len(shown) * LINE + MARGIN
    dots = "".join(
        f'<circle cx="{MARGIN + 4 + 20 * at}" cy="{BAR / 2}" r="6" fill="{colour}"/>'
        for at, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    rows = []
    for number, line in enumerate(shown):
        y, column = BAR + (number + 0.7) * LINE, 0
        for style, text in line:
            # Each word has its own position and length, so that columns align in every monospaced font.
            word = text.strip()
            if word:
                place = column + text.index(word)
                attribute = f' style="{style}"' if style else ""
                rows.append(
                    f'<text x="{MARGIN + place * COLUMN:.1f}" y="{y:.1f}" textLength="{len(word) * COLUMN:.1f}"'
                    f"{attribute}>{html.escape(word)}</text>"
                )
            column += len(text)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="A failing run of a transcript, as a terminal shows it">\n'
        f'<rect width="{width}" height="{height}" rx="10" fill="{PAPER}"/>\n{dots}\n'
        f"<g font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace\" "
        f'font-size="14" fill="{TEXT}" xml:space="preserve">\n' + "\n".join(rows) + "\n</g>\n</svg>\n"
    )


if __name__ == "__main__":
    lines = on_a_terminal(COMMAND).replace("\r\n", "\n").rstrip("\n").split("\n")
    (HERE / "failure.svg").write_text(drawn(lines), encoding="utf-8")
