"""`python -m tests.benchmark`: the package's components and the runtime's own on the same work, in turn.

Every case runs on a federation of its own (real processes, mutual TLS, loopback): without streaming, with the
runtime's components, with ours. The case `logs` has one federation, where the runtime's command and ours read
the same stored logs in turn; then our filters and GNU grep search one, which is also the case `search`. In
the case `follow` our command follows two jobs, one after the other. The case `thousand` has no federation:
its senders call the receiver in this process. A round is all of that once; figures are medians over the
rounds. The exit code is 1 if a floor is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.benchmark import cases, following, reading, report, searching, thousand
from tests.benchmark.measure import machine

_PREFIX = "logstream-benchmark-"
_ALL_SETUPS = {
    **reading.CASES,
    **searching.CASES,
    **following.CASES,
    **thousand.CASES,
}  # run once for all set-ups


def main() -> int:
    options = _options()
    sizes = cases.QUICK if options.quick else cases.FULL
    runs: dict[str, dict[str, list[cases.Values]]] = defaultdict(lambda: defaultdict(list))
    for number in range(options.rounds):
        for name in options.only:
            for setup, values in _measure(name, options.setups, sizes):
                runs[name][setup].append(values)
                told = " ".join(f"{key}={value:.4g}" for key, value in values.items())
                print(f"round {number + 1} {name:6} {setup:5} {told}", file=sys.stderr, flush=True)
    figures = {
        name: {setup: _median(values) for setup, values in setups.items()} for name, setups in runs.items()
    }
    found = report.outcomes(figures)
    about = {**machine(), "rounds": options.rounds, "quick": options.quick}
    if options.json:
        document = {"about": about, "lines": [outcome.fields() for outcome in found], "runs": runs}
        options.json.write_text(json.dumps(document, indent=2))
    report.show(
        found,
        f"log streaming: nvflare_logstream beside the stock components{' (quick)' if options.quick else ''}",
    )
    return 0 if all(outcome.floor_reached for outcome in found) else 1


def _measure(name: str, setups: Sequence[str], sizes: cases.Sizes) -> Iterator[tuple[str, cases.Values]]:
    """Run a case with every set-up; what is compared on one federation has one run for all."""
    if name in _ALL_SETUPS:
        with tempfile.TemporaryDirectory(prefix=_PREFIX) as root:
            yield from _ALL_SETUPS[name](Path(root), sizes, setups).items()
        return
    for setup in setups:
        with tempfile.TemporaryDirectory(prefix=_PREFIX) as root:
            values = cases.CASES[name](cases.Bench(Path(root), setup, sizes))
        yield setup, values


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmark", description=(__doc__ or "").partition("\n\n")[2]
    )
    choices: dict[str, tuple[str, ...]] = {"--only": (*cases.CASES, *_ALL_SETUPS), "--setups": cases.SETUPS}
    for option, names in choices.items():
        parser.add_argument(
            option, nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names)
        )
    parser.add_argument(
        "--quick", action="store_true", help="little work: shows that it runs, the figures mean nothing"
    )
    parser.add_argument(
        "--rounds", type=int, default=1, help="repeat everything and take medians (default 1)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to FILE")
    return parser.parse_args()


def _median(runs: list[cases.Values]) -> cases.Values:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


if __name__ == "__main__":
    sys.exit(main())
