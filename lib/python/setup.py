# SPDX-License-Identifier: MIT
"""What pyproject.toml can't say: the version is the project's, which dkms.conf has,
and nothing is written beside a source.
"""
import atexit
import os
import re
import shutil
import tempfile

from setuptools import setup

HERE = os.path.dirname(os.path.abspath(__file__))


def version():
    path = os.path.normpath(os.path.join(HERE, "..", "..", "dkms.conf"))
    try:
        with open(path, encoding="ascii") as file:
            return re.search(r'^PACKAGE_VERSION="(.*)"', file.read(), re.MULTILINE)[1]
    except OSError as error:
        raise SystemExit(f"mmnf: the version is in {path}: {error.strerror}; "
                         "expected to be built inside the source tree") from None


scratch = tempfile.mkdtemp(prefix="mmnf-build-")
atexit.register(shutil.rmtree, scratch, ignore_errors=True)
setup(version=version(), options={"build": {"build_base": scratch},
                                  "egg_info": {"egg_base": scratch}})
