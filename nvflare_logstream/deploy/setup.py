"""`nvflare-logstream setup`: what is to be done at each place, and doing it.

Each place is planned before anything is written. A place that cannot be set up stays as it is, and so does
none of the others because of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import unified_diff
from pathlib import Path

from nvflare_logstream.deploy import files, resources
from nvflare_logstream.deploy.components import COMPONENTS, PACKAGE
from nvflare_logstream.deploy.files import Found
from nvflare_logstream.deploy.kits import RESOURCES, Place, Role
from nvflare_logstream.deploy.resources import Choices
from nvflare_logstream.errors import ArgumentError, KitError
from nvflare_logstream.words import Word

_ROLES = (Role.SERVER, Role.CLIENT)
_SIGNATURE = "signature.json"
_STOCK_PATH = re.compile(r"path[\"']?\s*[:=]\s*[\"']?nvflare\.app_common\.logging\.")


class Status(Word):
    """How a place stands."""

    TO_DO = "to_do"
    DONE = "done"
    UNCHANGED = "unchanged"
    FAILED = "failed"


@dataclass(frozen=True)
class Plan:
    """What is to be done at one place, or was.

    Attributes:
        place: where.
        status: how it stands.
        before: the resources file in effect.
        after: the text of `local/resources.json` to be; None to remove that file, so that the default one
            is in effect again.
        spent: kept files that a way back uses up.
        kept: where the file before was kept.
        notes: what the admin should know.
        problem: why nothing can be done here.
        paste: what to merge by hand instead.
    """

    place: Place
    status: Status
    before: Found | None = None
    after: str | None = None
    spent: tuple[Path, ...] = ()
    kept: Path | None = None
    notes: tuple[str, ...] = ()
    problem: str = ""
    paste: str = ""

    def diff(self) -> list[str]:
        """The difference between the file in effect and the one to be; empty if there is none."""
        if not self.before or self.status not in (Status.TO_DO, Status.DONE):
            return []
        after, name = self.after, self.place.own_resources
        if after is None:
            name = self.place.local / f"{RESOURCES}.default"
            after = files.read(name).text
        lines = self.before.text.splitlines(), after.splitlines()
        return list(unified_diff(*lines, str(self.before.path), str(name), n=2, lineterm=""))


def plan(places: tuple[Place, ...], choices: Choices | None) -> list[Plan]:
    """What is to be done at each place that has a site or server.

    Args:
        places: where; kits of relays and admins have nothing to set up.
        choices: what was chosen; None to undo a set-up.

    Raises:
        KitError: if there is no such place.
        ArgumentError: if something was chosen that none of the places has.
    """
    there = [place for place in places if place.role in _ROLES or place.problem]
    roles = {place.role for place in there}
    if not there:
        what = ", ".join(f"{place.root} is the kit of a {place.role}" for place in places)
        raise KitError(f"{what}: only sites and servers are set up")
    if choices and Role.CLIENT not in roles and choices.files:
        raise ArgumentError("--files", choices.files, "it is for sites, and there is none here")
    if choices and Role.CLIENT not in roles and choices.opt_out:
        raise ArgumentError("--opt-out", True, "it is for sites, and there is none here")
    if choices and Role.SERVER not in roles and choices.keep_days:
        raise ArgumentError("--keep-days", choices.keep_days, "it is for the server, which is not here")
    return [_planned(place, choices) for place in there]


def carry_out(plans: list[Plan]) -> Iterator[Plan]:
    """Do what was planned, one place after another, and say of each how it went."""
    for planned in plans:
        if planned.status is not Status.TO_DO:
            yield planned
            continue
        try:
            with files.locked(planned.place.local):
                done = replace(planned, status=Status.DONE, kept=_done(planned))
        except KitError as error:
            done = replace(planned, status=Status.FAILED, problem=str(error))
        yield done


def _planned(place: Place, choices: Choices | None) -> Plan:
    try:
        if place.problem:
            raise KitError(place.problem)
        _need_a_kit_that_stays(place)
        if place.resources is None:
            raise KitError(
                f"{place.local}: it has neither {RESOURCES} nor {RESOURCES}.default; "
                "take them from the start-up kit that was sent"
            )
        if not place.is_json:
            return _by_hand(place, choices)
        if place.resources.parent != place.local:
            text = (
                "the runtime takes it for the site's resources; move it out of `local/`, then run this again"
            )
            raise KitError(f"{place.resources}: {text}")
        before = files.read(place.resources)
        try:
            found = _set_up(place, before, choices) if choices else _undone(place, before)
        except KitError as error:
            raise KitError(f"{place.resources}: {error}") from error
        except RecursionError as error:
            raise KitError(f"{place.resources}: it is nested too deeply; correct that by hand") from error
        return replace(found, notes=(*found.notes, *_warnings(found)))
    except KitError as error:
        return Plan(place, Status.FAILED, problem=str(error))


def _set_up(place: Place, before: Found, choices: Choices) -> Plan:
    edited = resources.set_up(place.role, before.text, choices)
    status = Status.UNCHANGED if edited.text == before.text else Status.TO_DO
    return Plan(place, status, before, edited.text, notes=edited.notes)


def _undone(place: Place, before: Found) -> Plan:
    """The way back: byte for byte where nobody has edited the file since, else only what a set-up adds."""
    if not resources.lists_ours(before.text, place.role):
        return Plan(place, Status.UNCHANGED, before, before.text)
    spent = _way_back(place.own_resources, before.text)
    if spent:
        first = files.read(spent[-1])
        made = files.name_of(first.path) != RESOURCES
        with suppress(KitError):  # a default file that is gone or damaged since
            now = files.read(place.local / files.name_of(first.path)).text if made else first.text
            opened = resources.may_logs_leave(now) and not resources.may_logs_leave(before.text)
            # What was said before a later no does not come back by itself, and where somebody edited the file
            # between two set-ups, what was kept is a set-up too.
            if not (opened and place.role is Role.CLIENT) and not resources.lists_ours(now, place.role):
                return Plan(place, Status.TO_DO, before, None if made else now, spent)
    edited = resources.take_out(place.role, before.text, _earlier(place))
    return Plan(place, Status.TO_DO, before, edited.text, notes=edited.notes)


def _way_back(path: Path, text: str) -> tuple[Path, ...]:
    """The kept files that lead from `text` back; the last is what was there before the first set-up."""
    spent: list[Path] = []
    while (kept := files.kept_before(path, text)) and kept not in spent:
        spent.append(kept)
        text = files.read(kept).text
        if files.name_of(kept) != RESOURCES:
            break
    return tuple(spent)


def _earlier(place: Place) -> str | None:
    """The newest file that is known from before a set-up."""
    for path in (*files.all_kept(place.local), place.local / f"{RESOURCES}.default"):
        with suppress(KitError):
            text = files.read(path).text
            if not resources.lists_ours(text, place.role):
                return text
    return None


def _done(planned: Plan) -> Path | None:
    """Write what was planned, unless somebody has changed the file since; the caller holds the lock."""
    assert planned.before is not None
    path = planned.place.own_resources
    made = planned.before.path != path
    if files.read(planned.before.path).data != planned.before.data or (made and path.exists()):
        raise KitError(f"{path}: it was changed meanwhile; run this again")
    if planned.spent:
        back = None if planned.after is None else files.read(planned.spent[-1])
        files.restore(path, back, planned.before, list(planned.spent))
        return None
    assert planned.after is not None
    return files.replace(path, planned.after, planned.before)


def _by_hand(place: Place, choices: Choices | None) -> Plan:
    """A file in a format that is not edited here, as only the runtime's optional packages read it."""
    assert place.resources is not None
    text = files.read(place.resources).text
    ours = f"{PACKAGE}{COMPONENTS[place.role][1]}"
    wanted = ours in text and not _STOCK_PATH.search(text) if choices else ours not in text
    if wanted and choices in (None, Choices()):
        return Plan(place, Status.UNCHANGED)
    problem = f"{place.resources}: it is not JSON, and is not edited here; "
    if not choices:
        return Plan(place, Status.FAILED, problem=f"{problem}take {ours} out by hand")
    problem += "take the components of nvflare.app_common.logging out by hand, and merge this"
    return Plan(place, Status.FAILED, problem=problem, paste=resources.to_paste(place.role, choices))


def _need_a_kit_that_stays(place: Place) -> None:
    """Refuse a kit where a change would be lost or would break it.

    Raises:
        KitError: saying where to make the change instead.
    """
    workspace = place.root.parent if place.root.name == "kit" else place.root
    copied = workspace / "local"
    if copied.is_symlink() and copied.resolve() == (workspace / "kit" / "local").resolve():
        text = (
            "it is a copy that the start script makes anew at each start; set up the kit that it is made from"
        )
        raise KitError(f"{place.local}: {text}")
    if (place.root / _SIGNATURE).exists():
        text = (
            "the kit is signed as a whole, for confidential computing; a change must come before the signing"
        )
        raise KitError(f"{place.root}: {text}")


def _warnings(found: Plan) -> Iterator[str]:
    """What stands beside the file that a set-up does not touch."""
    place = found.place
    if (place.local / _SIGNATURE).exists() and found.status is Status.TO_DO:
        yield f"{place.local} is signed: the runtime does not check that at start; if you do, sign it anew"
    for path in place.extra_resources():
        with suppress(KitError):
            for name in resources.stock_classes(files.read(path).text):
                yield f"{path} also lists {name}: take it out by hand"
