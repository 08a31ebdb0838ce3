"""What is said of an error that nobody foresaw, at both ends."""

from __future__ import annotations

import logging
from collections.abc import Callable

from nvflare_logstream.lines import in_one_line

_SECONDS = 60.0  # between two tracebacks of a kind: the site comes again with the same request
_logger = logging.getLogger(__name__)


class Failures:
    """Logs such errors, each kind once a minute.

    Args:
        clock: gives the time in seconds, from any beginning.
    """

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self._logged: dict[type[Exception], float] = {}  # when one of a kind was logged last

    def log(self, site: str, error: Exception) -> str:
        """Log an error with its traceback, and return what the site is told of it."""
        now, kind = self._clock(), type(error)
        if now - self._logged.get(kind, -_SECONDS) >= _SECONDS:
            self._logged[kind] = now
            _logger.error("%s: a request failed", in_one_line(site), exc_info=error)
        return f"the server failed over this request ({kind.__name__}); its log says more"
