"""Fits a line to points that it makes up, with NumPy; stands for a trainer of your own.

What counts here is how it logs: through a logger of Python's, one line for each step.
"""

import argparse
import logging

import numpy as np
import nvflare.client as flare

MODEL = "numpy_key"  # under which the runtime's NumPy components keep a model
STEPS, RATE = 10, 0.1
logger = logging.getLogger("train")


def main() -> None:
    """Train for as many rounds as the server asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--failing-site", default="", help="site whose training fails in round 1")
    arguments = parser.parse_args()
    # Without an effect in the job's own process, which has handlers for log.txt and its other logs.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s - %(name)s - %(levelname)s - %(message)s")
    flare.init()
    site = flare.get_site_name()
    chance = np.random.default_rng(sum(site.encode()))
    x = chance.uniform(-1, 1, 100)
    y = 3 * x - 1 + chance.normal(0, 0.1, 100)
    while flare.is_running():
        model = flare.receive()
        if model is None:
            break
        slope, start = np.asarray(model.params[MODEL], dtype=float)
        logger.info(f"{site}: round {model.current_round} of {model.total_rounds} begins")
        if site == arguments.failing_site and model.current_round == 1:
            raise ValueError("the labels of batch 7 are not numbers")
        for step in range(1, STEPS + 1):
            error = slope * x + start - y
            slope, start = slope - RATE * 2 * (error * x).mean(), start - RATE * 2 * error.mean()
            loss = float((error**2).mean())
            logger.info(f"round {model.current_round} step {step} loss {loss:.4f}")
        flare.send(flare.FLModel(params={MODEL: np.array([slope, start])}, metrics={"loss": loss}))


if __name__ == "__main__":
    main()
