"""The pages that people read, and what is typed in them."""

import re
from pathlib import Path

from commands import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PYTHON = re.compile(r"(?:^|[\s`\"'])(?:\S*/)?python (?=-|\w)")


def blocks(page: Path) -> list[tuple[str, str]]:
    """The language and the text of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.M | re.S)


def spans(page: Path) -> list[str]:
    """What stands in the type of code within sentences."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def lines(page: Path) -> list[str]:
    """Command lines, each as one line: of blocks and of sentences; of a dialogue what is typed."""
    found = []
    for language, text in blocks(page):
        if language == "python":
            continue
        joined = re.sub(r"\\\n\s*", " ", text).splitlines()
        typed = [line[2:] for line in joined if line.startswith("$ ")]
        found += typed or joined
    return found + spans(page)
