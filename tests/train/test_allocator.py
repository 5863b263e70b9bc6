import os
import platform
import subprocess
import sys

import pytest

# The second block of a size is the first one's memory again, or new pages.
CODE = """
import resource, sys
from stbp.train.allocator import keep_freed_memory
keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = b"x" * (24 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize(("asked", "kept"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, False)])
def test_what_is_freed_is_used_again_unless_the_environment_says_otherwise(asked, kept):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run([sys.executable, "-c", CODE], env=env | asked, capture_output=True, text=True, check=True)
    assert (int(done.stdout) < 1000) == kept
