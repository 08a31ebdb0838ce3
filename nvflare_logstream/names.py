"""Names of jobs, sites and files.

A name arrives from the wire, from a job author or from an admin, and becomes part of a path. It is checked
and refused, never changed into something else.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TypeGuard

from nvflare_logstream.errors import ArgumentError

SERVER_SITE = "server"
ALL_SITES = "all"
_MAX_SITE = 255  # bytes in UTF-8: what a file system takes as one name
DEFAULT_LOG_FILES = ("log.txt", "error_log.txt")
CONSOLE_FILE = "console.txt"  # a log of this name is what the job's process and its children print

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,127}")
# Begins with what may begin a name, or stand for it.
_PATTERN = re.compile(r"(?=[^.@+-])(?:[A-Za-z0-9_.@+*?-]|\[!?[A-Za-z0-9_.@+-]+\])+")
_MAX_PATTERN = 128  # characters
_ALLOWED = (
    "a plain name is letters, digits and _ . @ + - (not first: . @ + -), at most 128 characters, no path"
)
_FILE_ALLOWED = (
    f"{_ALLOWED}; or a pattern of such names with * (any characters), ? (any one) or [a-z] (one of these)"
)
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_!-]{0,39}")
_SITE_ALLOWED = (
    "a site's name is printable, at most 255 bytes, without / and \\, and begins with no . and no blank"
)


def is_name(value: object) -> TypeGuard[str]:
    """Whether `value` is a plain name."""
    return isinstance(value, str) and bool(_PLAIN_NAME.fullmatch(value))


def check_name(argument: str, value: object) -> str:
    """Return `value` if it is a plain name.

    Raises:
        ArgumentError: naming `argument`, the value and what is allowed.
    """
    if not is_name(value):
        raise ArgumentError(argument, value, _ALLOWED)
    return value


def is_site(value: object) -> TypeGuard[str]:
    """Whether `value` may name a site: one part of a path that can be shown on a terminal.

    The runtime and its certificates admit more than plain names, such as letters with accents or a leading
    "-". What is not printable is control characters, marks that turn the direction of text, and all blanks
    but the space.
    """
    if not isinstance(value, str) or not value.isprintable() or value != value.strip(" "):
        return False
    is_one_part = value != "" and value[0] != "." and "/" not in value and "\\" not in value
    return is_one_part and len(value.encode()) <= _MAX_SITE


def check_site(argument: str, value: object) -> str:
    """Return `value` if it may name a site.

    Raises:
        ArgumentError: naming `argument`, the value and what is allowed.
    """
    if not is_site(value):
        raise ArgumentError(argument, value, _SITE_ALLOWED)
    return value


def server_first(site: str) -> tuple[bool, str]:
    """The key by which sites are sorted: the server, then all others by their names."""
    return site != SERVER_SITE, site


def is_version(value: object) -> TypeGuard[str]:
    """Whether `value` may be the version of a package: letters, digits and . + _ ! -, at most 40."""
    return isinstance(value, str) and bool(_VERSION.fullmatch(value))


def fits(site: str, pattern: str) -> bool:
    """Whether a site is meant by `pattern`: its name, "all", or a pattern as a shell has them.

    A site's name may itself look like a pattern.
    """
    return pattern in (ALL_SITES, site) or fnmatch.fnmatchcase(site, pattern)


def is_pattern(value: object) -> TypeGuard[str]:
    """Whether `value` is a pattern of plain names, such as "*.log", and no name itself."""
    if not isinstance(value, str) or len(value) > _MAX_PATTERN or is_name(value):
        return False
    return bool(_PATTERN.fullmatch(value))


def check_log_files(argument: str, value: object) -> tuple[str, ...]:
    """Return the list of log file names and patterns as a tuple, without repeats and in the order given.

    Raises:
        ArgumentError: if it is not a non-empty list of plain names and patterns of such.
    """
    if not isinstance(value, (list, tuple)) or not value:
        raise ArgumentError(argument, value, 'a list of at least one file name, such as ["log.txt"]')
    for number, name in enumerate(value):
        if not (is_name(name) or is_pattern(name)):
            raise ArgumentError(f"{argument}[{number}]", name, _FILE_ALLOWED)
    return tuple(dict.fromkeys(value))


def log_files_of(log_files: object, log_file_name: object) -> tuple[str, ...]:
    """The files that a component is to stream: a list, or one name as the runtime's own components take it.

    Raises:
        ArgumentError: if both are given, or if one is not allowed.
    """
    if log_file_name is None:
        return DEFAULT_LOG_FILES if log_files is None else check_log_files("log_files", log_files)
    if log_files is not None:
        raise ArgumentError("log_files", log_files, "give either log_file_name or log_files, not both")
    return (check_name("log_file_name", log_file_name),)


def check_seconds(argument: str, value: object, low: float, high: float) -> float:
    """Return `value` in seconds if it is a number from `low` to `high`.

    Raises:
        ArgumentError: if it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ArgumentError(argument, value, f"a number of seconds from {low:g} to {high:g}")
    return float(value)
