# SPDX-License-Identifier: Apache-2.0
"""The `bragg` command: python -m bragg."""

import os
import signal
import sys
from pathlib import Path

from . import _bragg


def main() -> int:
    if sys.argv[1:2] == ["bench"] and "OMP_PROC_BIND" not in os.environ and "GOMP_CPU_AFFINITY" not in os.environ:
        # OpenMP read the environment when the extension was loaded. The command would start itself anew, by its own file.
        os.environ["OMP_PROC_BIND"] = "true"
        os.environ.setdefault("OMP_PLACES", "cores")
        os.execv(sys.executable, sys.orig_argv)
    os.environ.setdefault("BRAGG_PEERS", str(Path(__file__).parent / "peers"))
    # As in a program of its own.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    return _bragg.command(["bragg", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
