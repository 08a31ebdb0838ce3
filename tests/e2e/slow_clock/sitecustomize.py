"""Sets the clock back in each process that has this directory in its PYTHONPATH."""

import time

SECONDS_SLOW = 600.0

_right_time = time.time
time.time = lambda: _right_time() - SECONDS_SLOW
