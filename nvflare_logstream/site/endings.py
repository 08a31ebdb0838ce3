"""How a job ended, in the words that readers see: the one table of the runtime's codes."""

from __future__ import annotations

from typing import NamedTuple

from nvflare_logstream.lines import in_one_line

# What the runtime's own exit codes of a job's process mean.
_MEANINGS = {
    101: "exception",
    102: "unsafe component",
    103: "configuration",
    104: "infrastructure, or a class that the site does not allow",
}
_LONGEST_REASON = 200  # characters; the rest of what a launcher says is for its own log


class Ending(NamedTuple):
    """How a job's process ended, as far as somebody can say.

    Attributes:
        code: the exit code; below 0 the signal that ended the process; None where nobody knows.
        reason: why, as the launcher names it, such as "OOMKilled" or "NODE_FAIL".
    """

    code: int | None = None
    reason: str = ""

    def __str__(self) -> str:
        if self.code is None:
            code = "exit code unknown"
        else:
            code = f"signal {-self.code}" if self.code < 0 else f"exit code {self.code}"
        details = (_MEANINGS.get(self.code or 0, ""), in_one_line(self.reason)[:_LONGEST_REASON])
        told = "; ".join(filter(None, details))
        return f"{code} ({told})" if told else code


class Doubt(NamedTuple):
    """Why nobody at the site can say that what it could read of a job's logs is all that there was.

    Attributes:
        since: when the job was over, in seconds since the epoch.
        reason: in plain words.
    """

    since: float
    reason: str
