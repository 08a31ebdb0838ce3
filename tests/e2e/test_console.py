"""What was only printed: the last words of a job that crashed, and the lines of an outside trainer."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from nvflare_logstream.lab.processes import CONSOLE

from .lab import Job, Lab, wait_for

pytestmark = pytest.mark.timeout(300)

SITE = "site-7"
# As any configured logger writes them: the runtime prints such lines, and none reaches log.txt.
TRAINER = """
import sys, time
import nvflare.client as flare

flare.init()
while flare.is_running():
    model = flare.receive()
    for number in range(20):
        print(time.strftime("%Y-%m-%d %H:%M:%S"), "- trainer - INFO - step", number)
    sys.stderr.write("only printed\\n")
    flare.send(model)
"""


def submit(lab: Lab) -> dict[str, Job]:
    crash = [["append", "train-a.log", "epoch", 5], ["print", "last words"], ["segfault"]]
    return {"crash": lab.submit("crash", crash, sites=[SITE]), "recipe": submit_recipe(lab)}


def submit_recipe(lab: Lab) -> Job:
    """A stock recipe with its trainer in a process of its own; the job itself knows nothing of us."""
    from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe

    folder = lab.root / "recipe"
    folder.mkdir()
    (folder / "trainer.py").write_text(TRAINER)
    recipe = NumpyFedAvgRecipe(
        name="printing",
        model=[1.0, 2.0],
        min_clients=1,
        num_rounds=1,
        train_script=str(folder / "trainer.py"),
        launch_external_process=True,
        command=f"{sys.executable} -u",
    )
    recipe.export(str(folder))
    meta = folder / "printing" / "meta.json"
    deploy = {app: ["server", SITE] for app in json.loads(meta.read_text())["deploy_map"]}
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "deploy_map": deploy}))
    return Job(lab, lab.federation.submit(folder / "printing"), (SITE,))


def test_a_job_that_dies_in_native_code(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["crash"]
    job.wait()
    job.assert_complete(SITE, "log.txt", "console.txt", "train-a.log", outcome="signal 11")
    printed = job.path(SITE, "console.txt").read_text()
    assert re.search(r"last words\n.*Fatal Python error: Segmentation fault\n", printed, re.DOTALL)
    assert "in _do_segfault" in printed and "last words" not in job.path(SITE, "log.txt").read_text()

    console = lab.federation.client_dir(SITE) / CONSOLE
    wait_for(lambda: "in _do_segfault" in console.read_text(), f"the last words in {console}")
    assert console.read_text().count("\nlast words\n") == 1


def test_what_a_trainer_outside_the_jobs_process_prints(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["recipe"]
    assert job.wait() == "FINISHED:COMPLETED"
    job.assert_complete(SITE, "log.txt", "console.txt")
    printed = job.path(SITE, "console.txt").read_text()
    assert re.findall(r"- trainer - INFO - step (\d+)", printed) == [str(number) for number in range(20)]
    assert "only printed" in printed
    assert "- trainer - INFO - step" not in job.path(SITE, "log.txt").read_text()
    # From the very beginning of the job's process, before anything of the job was loaded.
    assert printed.index("Worker_process started.") < printed.index("step 0")


def test_no_site_has_such_a_log_that_did_not_ask_for_it(lab: Lab, jobs: dict[str, Job]) -> None:
    jobs["crash"].wait()
    kits = lab.federation.client_dir(SITE).parent
    assert {path.relative_to(kits).parts[0] for path in kits.glob(f"site-*/*/{Path(CONSOLE).name}")} <= {SITE}
