"""The house rules: imports point down, only two rooms know the runtime, and modules and functions stay small.

The rooms and their order are those of the architecture notes (nvflare_logstream/ARCHITECTURE.md).
"""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "nvflare_logstream"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

# From the top of the house down: a room imports rooms below its own.
ROOMS = [
    "cli",
    "lab",
    "testing",
    "deploy",
    "flare",
    "client",
    "server",
    "site",
    "store",
    "wire",
    "filters",
    "typed_time",
    "lines",
    "streams",
    "names",
    "errors",
    "words",
    "hashing",
]
MAY_IMPORT_THE_RUNTIME = {"flare", "lab"}
MODULE_LINES = 300
FUNCTION_LINES = 60
# Functions whose parameters are the options of a command: their length is that of the list.
OPTION_LISTS = {"cli/logs.py": {"logs"}}


@cache
def imports_of(source: str, module: str) -> list[str]:
    """Every module that a source imports anywhere in it: full names, also of `from package import name`."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: relative imports hide where a name comes from"
            names += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


@cache
def public_names() -> dict[str, str]:
    """Where the package's root, which loads them when asked, has its public names from."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (homes,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and [ast.unparse(name) for name in node.targets] == ["_HOMES"]
    )
    return {f"nvflare_logstream.{name}": home for name, home in ast.literal_eval(homes).items()}


def room_of(name: str) -> str | None:
    """The room of a dotted name; None for other packages and for the package itself."""
    parts = public_names().get(name, name).split(".")
    return parts[1] if parts[0] == "nvflare_logstream" and parts[1:] and parts[1] in ROOMS else None


def dotted(module: str) -> str:
    return "nvflare_logstream." + module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def upward(module: str, source: str) -> list[str]:
    """The imports of a module that point up."""
    own = room_of(dotted(module))
    if own is None:
        return []
    rooms = {name: room_of(name) for name in imports_of(source, module)}
    return [name for name, room in rooms.items() if room and ROOMS.index(room) < ROOMS.index(own)]


def runtime_imports(module: str, source: str) -> list[str]:
    """The imports of the runtime in a module that may not know it."""
    if room_of(dotted(module)) in MAY_IMPORT_THE_RUNTIME:
        return []
    return [name for name in imports_of(source, module) if name.split(".")[0] == "nvflare"]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import one another in a circle, in order; empty if there is none."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for other in sorted(graph.get(name, ())):
                if round_trip := walk(other, [*path, name]):
                    return round_trip
            done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := walk(name, []))), [])


def import_graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """Which module of the package imports which other ones."""
    names = {dotted(module): module for module in sources}
    return {
        name: {other for other in imports_of(sources[module], module) if other in names and other != name}
        for name, module in names.items()
    }


def long_functions(source: str, allowed: set[str]) -> list[str]:
    functions = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    return [
        f"{node.name}: {length} lines"
        for node in functions
        if (length := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES and node.name not in allowed
    ]


def test_every_file_stands_in_a_room():
    tops = {module.split("/")[0].removesuffix(".py") for module in MODULES}
    assert tops - {"__init__"} <= set(ROOMS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    assert upward(module, (PACKAGE / module).read_text()) == []


@pytest.mark.parametrize("module", MODULES)
def test_only_two_rooms_know_the_runtime(module):
    assert runtime_imports(module, (PACKAGE / module).read_text()) == []


def test_no_modules_import_one_another_in_a_circle():
    sources = {module: (PACKAGE / module).read_text() for module in MODULES if module != "__init__.py"}
    assert circle(import_graph(sources)) == []


@pytest.mark.parametrize("module", MODULES)
def test_a_module_and_its_functions_can_be_read_in_one_sitting(module):
    source = (PACKAGE / module).read_text()
    assert len(source.splitlines()) <= MODULE_LINES
    assert long_functions(source, OPTION_LISTS.get(module, set())) == []


def test_the_rules_catch_what_they_are_for():
    """Each kind of offence, made up."""
    up = "from nvflare_logstream.server.receiver import Receiver\n"
    assert upward("site/sender.py", up) == [
        "nvflare_logstream.server.receiver",
        "nvflare_logstream.server.receiver.Receiver",
    ]
    assert upward("wire/fields.py", "from nvflare_logstream import client\n") == ["nvflare_logstream.client"]
    assert upward("server/receiver.py", "import nvflare_logstream.store.store\n") == []
    hidden = "from nvflare_logstream import LogClient\n"
    assert upward("site/sender.py", hidden) == ["nvflare_logstream.LogClient"]
    inside = "def f():\n    from nvflare.apis.event_type import EventType\n"
    assert runtime_imports("client/follow.py", inside) and not runtime_imports("flare/archive.py", inside)
    sources = {
        "site/a.py": "import nvflare_logstream.site.b\n",
        "site/b.py": "def f():\n    from nvflare_logstream.site import a\n",
    }
    name = "nvflare_logstream.site"
    assert circle(import_graph(sources)) == [f"{name}.a", f"{name}.b", f"{name}.a"]
    assert long_functions("def f():\n" + "    x = 1\n" * 60, set()) == ["f: 61 lines"]


def test_the_core_works_without_the_runtime():
    """In a process where the runtime cannot be imported."""
    core = [
        dotted(module)
        for module in MODULES
        if room_of(dotted(module)) not in MAY_IMPORT_THE_RUNTIME | {"cli"} and module != "__init__.py"
    ]
    code = f"import sys\nsys.modules['nvflare'] = None\nimport {', '.join(core)}\n"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def run_tool(directory, tool):
    paths = () if tool == ("mypy",) else ("nvflare_logstream", "tests")
    return subprocess.run([sys.executable, "-m", *tool, *paths], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.ahead(run=run_tool)
@pytest.mark.parametrize("tool", [("ruff", "check"), ("ruff", "format", "--check"), ("mypy",)], ids=" ".join)
def test_a_tool_has_nothing_to_say(ahead, tool):
    run = ahead
    assert run.returncode == 0, run.stdout + run.stderr
