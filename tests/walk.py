"""The README's way from nothing to a followed job: its files and its commands, as a reader copies them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
_TITLE = "## From nothing to a followed job\n"


def _blocks(language: str) -> list[str]:
    (section,) = re.findall(rf"^{_TITLE}(.*?)^## ", (ROOT / "README.md").read_text(), re.M | re.S)
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.M | re.S)


def files() -> dict[str, str]:
    """By name, the text of each file; its first line names it."""
    return {re.match(r"# (\S+)\n", block)[1]: block for block in _blocks("python")}  # type: ignore[index]


def commands() -> list[str]:
    """The lines for a shell, in their order, without comments."""
    (block,) = _blocks("bash")
    return [re.split(r"\s+#", line)[0] for line in block.splitlines()]
