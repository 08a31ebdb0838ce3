"""What set-up changes in the text of a site's or server's resources file, and what of that is undone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from nvflare_logstream.deploy.components import (
    COMPONENTS,
    DISABLED,
    class_of,
    entry_of,
    free_id,
    is_disabled,
    is_ours,
    is_stock,
)
from nvflare_logstream.deploy.json_text import JsonText
from nvflare_logstream.deploy.kits import Role
from nvflare_logstream.errors import ArgumentError, KitError, show
from nvflare_logstream.names import DEFAULT_LOG_FILES, check_log_files

ALLOW_KEY = "allow_log_streaming"
LIST_KEY = "class_allow_list"
LIST_ENTRY = "nvflare_logstream."
_COMPONENTS = "components"
_STOCK_FILE_ARGUMENT, _STOCK_FILE = "log_file_name", "error_log.txt"
_MOST_DAYS = 36500


@dataclass(frozen=True)
class Choices:
    """What a person may choose at set-up.

    Args:
        files: the logs that leave a site; None for those of the set-up that is there, or the usual ones.
        opt_out: no log leaves a site.
        keep_days: for how many days the server keeps a job's logs; None for its default.

    Raises:
        ArgumentError: naming the option, the value and what is allowed.
    """

    files: tuple[str, ...] | None = None
    opt_out: bool = False
    keep_days: int | None = None

    def __post_init__(self) -> None:
        if self.files is not None:
            object.__setattr__(self, "files", check_log_files("--files", self.files))
        if self.keep_days is not None and not 1 <= self.keep_days <= _MOST_DAYS:
            raise ArgumentError(
                "--keep-days", self.keep_days, f"a whole number of days from 1 to {_MOST_DAYS}"
            )


@dataclass(frozen=True)
class Edited:
    """A resources file's new text, and what its admin should know of it."""

    text: str
    notes: tuple[str, ...] = ()


def to_paste(role: Role, choices: Choices) -> str:
    """The JSON to merge by hand into a resources file that cannot be edited here."""
    wanted: dict[str, Any] = {ALLOW_KEY: False} if role is Role.CLIENT and choices.opt_out else {}
    wanted |= {
        LIST_KEY: [LIST_ENTRY],
        _COMPONENTS: [entry_of(role, _arguments(role, choices, fresh=True), ())],
    }
    return json.dumps(wanted, indent=2)


def set_up(role: Role, text: str, choices: Choices) -> Edited:
    """Put our component into a resources file, in the place of the runtime's own.

    Raises:
        KitError: if the text is not JSON, or not as the runtime has it; nothing is guessed.
    """
    document = _opened(text)
    entries = _entries(document)
    ours = [number for number, entry in enumerate(entries) if is_ours(entry, role)]
    stock = [number for number, entry in enumerate(entries) if is_stock(entry)]
    if ours[1:]:
        raise KitError(f"it lists {COMPONENTS[role][1]} of this package {len(ours)} times; leave one of them")
    arguments = _arguments(role, choices, fresh=True)
    if ours:
        document = _with_arguments(document, ours[0], role, choices)
        if is_disabled(entries[ours[0]]):
            document = document.removed((_COMPONENTS, ours[0], DISABLED))
    elif stock:
        taken = {str(entry.get("id")) for number, entry in enumerate(entries) if number not in stock}
        document = _in_the_place_of(document, stock.pop(0), entry_of(role, arguments, taken))
    else:
        if _COMPONENTS not in document.value:
            document = document.added((_COMPONENTS,), [])
        taken = {str(entry.get("id")) for entry in entries}
        document = document.added((_COMPONENTS, len(entries)), entry_of(role, arguments, taken))
    for number in reversed(stock):
        document = document.removed((_COMPONENTS, number))
    new = _newly_leaving(entries, _entries(document)) if role is Role.CLIENT else ""
    notes = [f"{new} of every job will leave this site (--files chooses others)"] if new else []
    document = _listed(document, notes)
    if role is Role.CLIENT:
        document = _opted_out(document, choices)
        if document.value.get(ALLOW_KEY, True) is not True:
            shown = show(document.value[ALLOW_KEY]) if document.value[ALLOW_KEY] is not False else "false"
            notes = [f"{ALLOW_KEY} is {shown}: no log leaves this site, and the server shows it as refused"]
    return Edited(document.text, tuple(notes))


def take_out(role: Role, text: str, earlier: str | None) -> Edited:
    """Take our component out of a resources file, and put the runtime's own back.

    Args:
        role: whose file it is.
        text: the file.
        earlier: the file as it was before set-up, or the default one: what it had of the runtime's own log
            components comes back. None if nobody knows.

    Raises:
        KitError: as `set_up` does.
    """
    document = _opened(text)
    entries, before = _entries(document), _opened(earlier or "{}")
    ours = [number for number, entry in enumerate(entries) if is_ours(entry, role)]
    if not ours:
        return Edited(text)
    ruled = any("release" in (entries[number].get("args") or {}) for number in ours)
    there = any(map(is_stock, entries))
    back = [entry for entry in _entries(before) if is_stock(entry) and not there]
    kept = {str(entry.get("id")) for number, entry in enumerate(entries) if number not in ours}
    back = [{**entry, "id": free_id(str(entry.get("id")), kept)} for entry in back]
    if back:
        document = _in_the_place_of(document, ours.pop(0), back.pop(0))
    for number in reversed(ours):
        document = document.removed((_COMPONENTS, number))
    for entry in back:
        document = document.added((_COMPONENTS, len(document.value[_COMPONENTS])), entry)
    if LIST_ENTRY not in _list_of(before):
        for number in reversed([at for at, name in enumerate(_list_of(document)) if name == LIST_ENTRY]):
            document = document.removed((LIST_KEY, number))
    new = _newly_leaving(entries, _entries(document)) if role is Role.CLIENT else ""
    notes = [f"{new} of every job will leave this site by the runtime's own streamer"] if new else []
    if role is Role.CLIENT and ruled:
        notes.append('the rules in "release" go: the runtime\'s own streamer sends all lines as they are')
    if document.value.get(ALLOW_KEY, True) is not True and role is Role.CLIENT:
        notes = [f"{ALLOW_KEY} stays as it is: no log leaves this site until you set it to true"]
    return Edited(document.text, tuple(notes))


def may_logs_leave(text: str) -> bool:
    """Whether a site's resources file lets logs out; the text is JSON."""
    return _opened(text).value.get(ALLOW_KEY, True) is True


def lists_ours(text: str, role: Role) -> bool:
    """Whether a resources file has our component."""
    return any(is_ours(entry, role) for entry in _entries(_opened(text)))


def stock_classes(text: str) -> list[str]:
    """The runtime's own log components in a resources file."""
    return [class_of(entry) for entry in _entries(_opened(text)) if is_stock(entry)]


def _opened(text: str) -> JsonText:
    """The document, if it says what it says only once."""
    document = JsonText(text)
    if not isinstance(document.value, dict):
        raise KitError("it holds no object at the top level; correct that by hand")
    repeated = [f'"{key}"' for key in document.repeated_keys()]
    components = document.value.get(_COMPONENTS, [])
    if not isinstance(components, list) or not all(isinstance(entry, dict) for entry in components):
        raise KitError(f'"{_COMPONENTS}" is not a list of objects; correct that by hand')
    if not repeated:
        for number, _ in enumerate(components):
            keys = document.repeated_keys((_COMPONENTS, number))
            repeated += [f'"{key}" of {_COMPONENTS}[{number}]' for key in keys]
    if repeated:
        raise KitError(f"it has {', '.join(repeated)} more than once; leave the last, which the runtime uses")
    return document


def _entries(document: JsonText) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = document.value.get(_COMPONENTS, [])
    return entries


def _arguments(role: Role, choices: Choices, fresh: bool = False) -> dict[str, Any]:
    """The arguments that were chosen; `fresh`: with the usual ones where nothing was."""
    if role is Role.SERVER:
        return {} if choices.keep_days is None else {"keep_days": choices.keep_days}
    if choices.files is None and not fresh:
        return {}
    return {"log_files": list(choices.files or DEFAULT_LOG_FILES)}


def _in_the_place_of(document: JsonText, number: int, entry: dict[str, Any]) -> JsonText:
    """With `entry` where another is; an entry as the runtime's kits have it keeps its layout."""
    where = (_COMPONENTS, number)
    there = document.value[_COMPONENTS][number]
    if set(there) != set(entry):
        return document.replaced(where, entry)
    for key, value in entry.items():
        if there[key] != value:
            document = document.replaced((*where, key), value)
    return document


def _with_arguments(document: JsonText, number: int, role: Role, choices: Choices) -> JsonText:
    """Our entry, which is there, with what was chosen now; its other arguments stay."""
    where = (_COMPONENTS, number, "args")
    entry = document.value[_COMPONENTS][number]
    if not isinstance(entry.get("args", {}), dict):
        raise KitError(f'"args" of {_COMPONENTS}[{number}] is not an object; correct that by hand')
    for key, value in _arguments(role, choices).items():
        if "args" not in entry:
            document = document.added(where, {})
            entry = document.value[_COMPONENTS][number]
        if _STOCK_FILE_ARGUMENT in entry["args"] and key == "log_files":  # it takes one of the two
            document = document.removed((*where, _STOCK_FILE_ARGUMENT))
        change = document.replaced if key in entry["args"] else document.added
        if entry["args"].get(key) != value:
            document = change((*where, key), value)
    return document


def _newly_leaving(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> str:
    """The logs that leave a site with the components `after`, and did not with those `before`."""
    left = {name for entry in before for name in _leaving(entry)}
    return ", ".join(dict.fromkeys(name for entry in after for name in _leaving(entry) if name not in left))


def _leaving(entry: dict[str, Any]) -> list[str]:
    """The logs that a component of a site lets out."""
    stock = is_stock(entry) and class_of(entry).endswith("SiteLogStreamer")
    if is_disabled(entry) or not (stock or is_ours(entry, Role.CLIENT)):
        return []
    args = entry.get("args")
    args = args if isinstance(args, dict) else {}
    if isinstance(files := args.get("log_files"), list):
        return [str(name) for name in files]
    usual = [_STOCK_FILE] if stock else list(DEFAULT_LOG_FILES)
    return [str(args[_STOCK_FILE_ARGUMENT])] if _STOCK_FILE_ARGUMENT in args else usual


def _list_of(document: JsonText) -> list[Any]:
    listed = document.value.get(LIST_KEY)
    return listed if isinstance(listed, list) else []


def _listed(document: JsonText, notes: list[str]) -> JsonText:
    """With our package in the list of classes that a job may load, where there is such a list."""
    if LIST_KEY not in document.value:
        notes.append(
            f"it has no {LIST_KEY}: since 2.8.3 the runtime then admits its own classes only, and the logs "
            "of jobs without custom code are followed from outside, which works"
        )
        return document
    listed = document.value[LIST_KEY]
    if not isinstance(listed, list):
        raise KitError(f'"{LIST_KEY}" is not a list; correct that by hand')
    if LIST_ENTRY in listed or "*" in listed:
        return document
    return document.added((LIST_KEY, len(listed)), LIST_ENTRY)


def _opted_out(document: JsonText, choices: Choices) -> JsonText:
    if not choices.opt_out or document.value.get(ALLOW_KEY, True) is False:
        return document
    change = document.replaced if ALLOW_KEY in document.value else document.added
    return change((ALLOW_KEY,), False)
