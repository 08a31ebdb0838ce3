"""How a reader is told that its request is not allowed, or failed: the same for every service."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from nvflare_logstream.errors import ArgumentError, ErrorCode, LogNotFoundError, StoreError, WireError
from nvflare_logstream.wire.query_reply import ErrorReply

_logger = logging.getLogger(__name__)


def answered(reply: Callable[[], dict[str, Any]], asked: str) -> dict[str, Any]:
    """The encoded reply that `reply` makes; if it raises, an encoded `ErrorReply`.

    Args:
        reply: decodes the request and answers it.
        asked: what was asked, in words for the server's log.
    """
    try:
        return reply()
    except (ArgumentError, WireError) as error:
        return ErrorReply(ErrorCode.INVALID_ARGS, str(error)).encode()
    except LogNotFoundError as error:
        return ErrorReply(ErrorCode.LOG_NOT_FOUND, str(error)).encode()
    except StoreError as error:
        return ErrorReply(ErrorCode.LOG_CHANGED, str(error)).encode()
    except Exception as error:
        # A defect of ours: the reader gets an answer, the server's log a traceback.
        _logger.exception("%s failed", asked)
        return ErrorReply(ErrorCode.INTERNAL_ERROR, f"{type(error).__name__}: {error}").encode()
