"""What every question of a reader has in common; `queries` has the questions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

from nvflare_logstream.wire.fields import Fields
from nvflare_logstream.wire.query_reply import Reply
from nvflare_logstream.wire.query_values import FilterOptions
from nvflare_logstream.words import Word

NO_FILTERS = FilterOptions()

ReplyT = TypeVar("ReplyT", bound=Reply)


class Operation(Word):
    """What a request asks for."""

    STREAMS = "streams"
    READ = "read"
    FOLLOW = "follow"
    FETCH = "fetch"
    DIGEST = "digest"


class Request(ABC, Generic[ReplyT]):
    """What a reader asks; the type parameter is the type of its reply."""

    operation: ClassVar[Operation]
    filters: FilterOptions = NO_FILTERS

    @abstractmethod
    def encode(self) -> dict[str, Any]:
        """The request as it travels."""

    @classmethod
    @abstractmethod
    def decode(cls, row: Fields) -> Request[ReplyT]:
        """The request read back; raises WireError."""

    @abstractmethod
    def decode_reply(self, job_id: str, row: Fields) -> ReplyT:
        """The reply to this request about `job_id`; raises WireError."""
