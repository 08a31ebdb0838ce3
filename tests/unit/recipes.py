"""Every recipe class of the runtime: built, given log streaming twice, and exported; in a process of its own.

`python -m tests.unit.recipes` prints one JSON line a class. For a machine-learning framework that is not
installed stand modules whose every attribute is a class: a recipe only names what it finds there.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.metadata
import json
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nvflare

FRAMEWORKS = {
    "executorch", "flwr", "joblib", "private_set_intersection", "safetensors", "sklearn", "tenseal",
    "tensorboard", "tensorflow", "torch", "torchvision", "xgboost",
}  # fmt: skip
SCRIPT = "train.py"
MODEL_CODE = """
from torch import nn

class Net(nn.Module):
    pass

class Device:
    net = Net()
"""
MODEL = {"class_path": "model.Net", "args": {}}
NP, PT, TF = (f"nvflare.{name}.recipes." for name in ("app_common.np", "app_opt.pt", "app_opt.tf"))
SK, XGB = (f"nvflare.app_opt.{name}.recipes." for name in ("sklearn", "xgboost"))
EDGE = "nvflare.edge.tools."
TRAINS: dict[str, Any] = {"min_clients": 2, "train_script": SCRIPT}
RECIPES: dict[str, dict[str, Any]] = {
    f"{NP}fedavg.NumpyFedAvgRecipe": {**TRAINS, "model": [1.0]},
    f"{NP}lr.fedavg.FedAvgLrRecipe": TRAINS,
    f"{NP}cross_site_eval.NumpyCrossSiteEvalRecipe": {"eval_script": SCRIPT},
    "nvflare.recipe.cyclic.CyclicRecipe": TRAINS,
    "nvflare.recipe.fedavg.FedAvgRecipe": TRAINS,
    "nvflare.recipe.fed_task.FedTaskRecipe": {"min_clients": 1, "task_script": SCRIPT},
    "nvflare.recipe.fedstats.FedStatsRecipe": {
        "name": "stats",
        "stats_output_path": "stats.json",
        "sites": ["site-1", "site-2"],
        "statistic_configs": {"count": {}},
    },
    "nvflare.collab.recipe.CollabRecipe": {"job_name": "collab"},
    "nvflare.app_common.psi.recipes.dh_psi.DhPSIRecipe": {"min_clients": 2},
    "nvflare.app_opt.flower.recipe.FlowerRecipe": {"flower_content": "flower"},
    **{
        f"{PT}{name}": {**TRAINS, "model": MODEL}
        for name in (
            "fedavg.FedAvgRecipe",
            "fedavg_he.FedAvgRecipeWithHE",
            "fedprox.FedProxRecipe",
            "fedopt.FedOptRecipe",
            "scaffold.ScaffoldRecipe",
            "cyclic.CyclicRecipe",
        )
    },
    f"{PT}fedce.FedCERecipe": {**TRAINS, "model": MODEL, "trainable_param_names": ["w"]},
    f"{PT}fedeval.FedEvalRecipe": {
        "min_clients": 1,
        "model": MODEL,
        "eval_script": SCRIPT,
        "eval_ckpt": "/model.pt",
    },
    f"{PT}swarm.SwarmLearningRecipe": {**TRAINS, "name": "swarm", "num_rounds": 1, "model": MODEL},
    **{
        f"{TF}{name}": {**TRAINS, "model": MODEL}
        for name in (
            "fedavg.FedAvgRecipe",
            "fedopt.FedOptRecipe",
            "scaffold.ScaffoldRecipe",
            "cyclic.CyclicRecipe",
        )
    },
    f"{SK}fedavg.SklearnFedAvgRecipe": TRAINS,
    f"{SK}kmeans.KMeansFedAvgRecipe": TRAINS,
    f"{SK}svm.SVMFedAvgRecipe": TRAINS,
    f"{XGB}bagging.XGBBaggingRecipe": {"name": "bagging", "min_clients": 2},
    f"{XGB}histogram.XGBHorizontalRecipe": {"name": "horizontal", "min_clients": 2, "num_rounds": 1},
    f"{XGB}vertical.XGBVerticalRecipe": {
        "name": "vertical",
        "min_clients": 2,
        "num_rounds": 1,
        "label_owner": "site-1",
    },
    f"{EDGE}edge_fed_buff_recipe.EdgeFedBuffRecipe": {"job_name": "edge", "model": MODEL},
    f"{EDGE}et_fed_buff_recipe.ETFedBuffRecipe": {"job_name": "et", "input_shape": [1], "output_shape": [1]},
}
PER_SITE = ("XGBBaggingRecipe", "XGBHorizontalRecipe", "XGBVerticalRecipe", "NumpyFedAvgRecipe")
BASES = {f"{PT}swarm.BaseSwarmLearningRecipe"}  # what is built of them is a class above


def of_the_runtime() -> Iterator[str]:
    """The dotted names of all classes in the runtime's source that are derived from a recipe."""
    root = Path(nvflare.__file__).parent
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "Recipe" not in text:
            continue
        module = ".".join(("nvflare", *path.relative_to(root).with_suffix("").parts))
        for node in ast.parse(text).body:
            bases = [ast.unparse(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []
            if any(base.endswith("Recipe") for base in bases):
                yield f"{module}.{node.name}"  # type: ignore[attr-defined]


class Anything(type):
    """A class whose every attribute is a class of the same kind."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in vars(cls):
            setattr(cls, name, Anything(name, (), {"__init__": lambda self, *args, **kwargs: None}))
        return vars(cls)[name]


class Absent(MetaPathFinder, Loader):
    """Finds the modules of frameworks that are not installed."""

    def __init__(self) -> None:
        self.names = {name for name in FRAMEWORKS if find_spec(name) is None}

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in self.names else None

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        module.__getattr__ = Anything(spec.name, (), {}).__getattr__  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def objects_for(path: str) -> dict[str, Any]:
    """Arguments of a recipe that are objects."""
    name = path.rpartition(".")[2]
    if name == "DhPSIRecipe":
        from nvflare.app_common.psi.psi_spec import PSI

        class Items(PSI):
            def load_items(self) -> list[str]:
                return []

        return {"local_psi": Items(psi_writer_id="writer")}
    if path == "nvflare.recipe.cyclic.CyclicRecipe":
        from nvflare.app_opt.pt.job_config.model import PTModel

        return {"model": PTModel({"path": MODEL["class_path"]})}
    if path == "nvflare.recipe.fedavg.FedAvgRecipe":
        from nvflare.app_common.np.np_model_persistor import NPModelPersistor

        return {"model_persistor": NPModelPersistor()}
    if name == "FedStatsRecipe":
        from nvflare.app_common.abstract.statistics_spec import Statistics

        return {
            "stats_generator": type("Numbers", (Statistics,), dict.fromkeys(Statistics.__abstractmethods__))()
        }
    if name == "CollabRecipe":
        from tests.unit import collab_code

        return {"server": collab_code.Server(), "client": collab_code.Client()}
    if name in ("EdgeFedBuffRecipe", "ETFedBuffRecipe"):
        from nvflare.edge.tools.edge_fed_buff_recipe import DeviceManagerConfig, ModelManagerConfig

        model = importlib.import_module("model")
        device = {"device_model": model.Device()} if name == "ETFedBuffRecipe" else {}
        return {
            **device,
            "model_manager_config": ModelManagerConfig(),
            "device_manager_config": DeviceManagerConfig(),
        }
    return {}


def build(path: str, arguments: dict[str, Any]) -> Any:
    module, _, name = path.rpartition(".")
    recipe = getattr(importlib.import_module(module), name)(**arguments, **objects_for(path))
    if name in PER_SITE:
        from nvflare.apis.fl_component import FLComponent

        loader = {"data_loader": FLComponent()} if name.startswith("XGB") else {"train_args": "--lr 1"}
        recipe.set_per_site_config({"site-1": loader, "site-2": loader})
    return recipe


def main() -> None:
    warnings.simplefilter("ignore")
    sys.meta_path.append(Absent())
    # For each recipe the runtime reads the same modules again, for what they import.
    walk = ast.walk
    ast.parse = functools.cache(ast.parse)
    ast.walk = functools.cache(lambda node: tuple(walk(node)))
    version = importlib.metadata.version
    importlib.metadata.version = lambda name: "1.26" if name == "flwr" else version(name)
    from nvflare_logstream import enable_log_streaming

    Path("flower").mkdir()
    Path(SCRIPT).write_text("import flower\n")
    Path("model.py").write_text(MODEL_CODE)
    sys.path.insert(0, ".")
    for path, arguments in RECIPES.items():
        try:
            recipe = build(path, arguments)
            for _ in range(2):
                enable_log_streaming(recipe)
            root = tempfile.mkdtemp(dir=".")
            recipe.export(root)
            print(json.dumps({"recipe": path, "root": root}), flush=True)
        except Exception as error:
            print(json.dumps({"recipe": path, "error": f"{type(error).__name__}: {error}"}), flush=True)


if __name__ == "__main__":
    main()
