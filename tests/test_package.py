import subprocess
import sys

import stbp


def test_the_public_names_are_few_and_importing_the_package_imports_nothing():
    assert len(stbp.__all__) <= 15
    code = "import stbp, sys; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'matplotlib', 'tyro')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_public_name_resolves():
    for name in stbp.__all__:
        assert getattr(stbp, name) is not None
    assert set(stbp.__all__) <= set(dir(stbp))


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(stbp, "nonsense")
