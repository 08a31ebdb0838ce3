"""How long a sender may sleep: until a change wakes it, or until it has to look or to say something itself.

An idle job must cost next to nothing, and each look takes the processor from it. So where the system reports
every change, the sender looks of itself only now and then.
"""

from __future__ import annotations

from nvflare_logstream.site.followed import FollowedStream
from nvflare_logstream.site.state import SenderState
from nvflare_logstream.site.watch import Watcher

_ASLEEP = 60.0  # seconds between two looks while nothing is followed; an order ends the wait
_LOOK_ANYWAY = 5.0  # seconds between two looks where changes are reported; what is written by mmap is not


def seconds_to_rest(state: SenderState, watcher: Watcher, now: float, poll_interval: float) -> float:
    """Seconds until the next look if nothing wakes the sender.

    Args:
        state: what the sender follows.
        watcher: what wakes it.
        now: monotonic time in seconds.
        poll_interval: seconds between two looks at what may change unseen.
    """
    waits_for_time = state.questions.any_left or bool(state.appearing.directories)
    if not state.streams:
        return poll_interval if waits_for_time else _ASLEEP
    # While lines come, the next one ends the sleep anyway: to find out how long it may be would cost more.
    if state.is_quiet and not waits_for_time and _all_is_seen(state, watcher, now):
        poll_interval = max(poll_interval, _LOOK_ANYWAY)
    to_say = state.liveness - (now - state.exchange.last_answer)
    return min(poll_interval, state.exchange.longest_rest, max(0.0, to_say))


def _all_is_seen(state: SenderState, watcher: Watcher, now: float) -> bool:
    return all(_is_seen(stream, watcher, now) for stream in state.streams.values())


def _is_seen(stream: FollowedStream, watcher: Watcher, now: float) -> bool:
    """Whether what there is to do for a stream next comes with a change that wakes the sender."""
    if stream.trouble or stream.is_held_back(now) or not stream.source.settled:
        return False
    return watcher.reports(stream.directory, stream.source.descriptor, stream)
