"""A component that sets the clock of its site's processes back; it must come before what reads the clock.

The site's own process is set back when it imports this module, and a job's process by the `sitecustomize`
here, before it writes its first line.
"""

import os
import sys
from pathlib import Path

from nvflare.apis.fl_component import FLComponent

_HERE = str(Path(__file__).parent)

if _HERE not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
    from . import sitecustomize  # noqa: F401 - it sets the clock back

    sys.path.insert(0, _HERE)  # the runtime gives a job's process this path
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_HERE, os.environ.get("PYTHONPATH")]))


class SlowClock(FLComponent):
    """Importing it is what counts."""
