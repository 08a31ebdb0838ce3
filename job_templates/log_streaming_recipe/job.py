"""FedAvg on NumPy, from a recipe, whose logs are followed while it runs; in this directory:

python job.py                               simulate it on this machine
python job.py --startup-kit DIR             run it in the federation of this admin's start-up kit
python job.py --export --export-dir DIR     write the job to DIR, for `nvflare job submit`
"""

import argparse
import subprocess
import sys
from pathlib import Path

from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe
from nvflare.recipe.prod_env import ProdEnv
from nvflare.recipe.sim_env import SimEnv

from nvflare_logstream import enable_log_streaming

NAME = "log_streaming_recipe"
SCRIPT = "train.py"  # a path from here, under which it travels with the job: an absolute one would not


def main() -> int:
    """Run or export the job; the exit code says whether it went well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--startup-kit", metavar="DIR", help="an admin's start-up kit")
    parser.add_argument("--user", help="whose kit it is (default: the directory's name)")
    parser.add_argument("--sites", type=int, default=2, help="how many sites it needs (default: 2)")
    parser.add_argument("--failing-site", default="", help="a site whose training is to fail")
    arguments = parser.parse_args()
    if not Path(SCRIPT).is_file():
        parser.error(f"there is no {SCRIPT} here; run it in {Path(__file__).resolve().parent}")

    recipe = NumpyFedAvgRecipe(
        name=NAME,
        min_clients=arguments.sites,
        num_rounds=3,
        model=[0.0, 0.0],  # a line's slope and where it crosses the axis
        train_script=SCRIPT,
        train_args=f"--failing-site={arguments.failing_site}",
        key_metric="loss",
        key_metric_mode="min",
    )
    enable_log_streaming(recipe)  # last, when the recipe is as it should be

    if not arguments.startup_kit:
        run = recipe.execute(SimEnv(num_clients=arguments.sites))
        logs = Path(run.get_result()) / "server" / "logstream" / "simulate_job"
        print(f"the logs that arrived: {logs}")
        return 0
    kit = Path(arguments.startup_kit).resolve()
    run = recipe.execute(ProdEnv(str(kit), username=arguments.user or kit.name))
    job_id = run.get_job_id()
    print(f"submitted as {job_id}", flush=True)
    follow = ["logs", job_id, "--site", "all", "--follow", "--tail", "all", "--startup-kit", str(kit)]
    return subprocess.call([sys.executable, "-m", "nvflare_logstream.cli.main", *follow])


if __name__ == "__main__":
    sys.exit(main())
