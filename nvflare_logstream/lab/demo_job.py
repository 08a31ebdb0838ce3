"""The job that `nvflare-logstream demo` runs: it logs a few training steps, a warning and a traceback."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.executor import Executor


class DemoTrainer(Executor):
    """Pretends to train for some steps and logs as a trainer would.

    Args:
        steps: how many steps.
        seconds: how long a step takes.
    """

    def __init__(self, steps: int = 24, seconds: float = 0.15):
        super().__init__()
        self.steps = steps
        self.seconds = seconds

    def execute(self, task_name: str, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
        """Log the steps; the result is a model of one weight."""
        for step in range(1, self.steps + 1):
            if abort_signal.triggered:
                break
            time.sleep(self.seconds)
            loss, accuracy = 1.9 * 0.9**step, 1 - 0.8 * 0.93**step
            self.logger.info(f"step {step:2d}/{self.steps}  loss {loss:.4f}  accuracy {accuracy:.3f}")
            if step == self.steps // 3:
                self.logger.warning("the learning rate is high for this batch size")
            if step == 2 * self.steps // 3:
                self._fail_to_save()
        return DXO(DataKind.WEIGHTS, data={"w": np.zeros(1)}).to_shareable()

    def _fail_to_save(self) -> None:
        try:
            raise OSError("no space left on the checkpoint volume")
        except OSError:
            self.logger.exception("could not write the checkpoint, going on without it")
