# SPDX-License-Identifier: Apache-2.0
"""The documentation's Python gives what it says."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import bragg
import pytest

SOURCE = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def programs():
    for page in [SOURCE / "README.md", *sorted((SOURCE / "docs").glob("*.md"))]:
        for i, (program, output) in enumerate(BLOCK.findall(page.read_text())):
            yield pytest.param(program, output, id=f"{page.name}-{i}")


def test_there_are_programs():
    assert len(list(programs())) >= 3


@pytest.mark.parametrize(("program", "output"), list(programs()))
def test_a_program_gives_its_output(program, output):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout == output


def test_the_package_s_own_example():
    assert doctest.testmod(bragg) == (0, 5)
