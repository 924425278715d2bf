# SPDX-License-Identifier: Apache-2.0
"""How kernels are called in reports: by readable names, without bragg's namespaces and without parameters."""

import re
import subprocess


def readable(symbols):
    """Short names of mangled symbols, in the same order."""
    names = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True).stdout
    return [shortened(name) for name in names.splitlines()]


def shortened(name):
    name = re.sub(r"bragg::(detail::|v\d+::)?(cuda::)?", "", name.removeprefix("void "))
    return re.sub(r"\([^()]*\)$", "", name)
