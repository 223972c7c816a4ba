#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""lib/python as a package: a wheel of it in a fresh environment, how it finds the
library, what it says of one that will not do, and its types by mypy.  No network.
KTAP.
"""
import os
import subprocess
import sys
import sysconfig
import venv

try:
    import mypy  # noqa: F401
    import numpy  # noqa: F401
    import wheel  # noqa: F401
except ImportError as error:
    print(f"1..0 # SKIP {error}: tests/deps.sh test")
    print(error)
    sys.exit(4)

SRC, LIB = os.environ["MMNF_SRC"], os.path.realpath(os.environ["MMNF_LIB"])
PACKAGE = os.path.join(SRC, "lib", "python")
sys.path.insert(0, os.path.join(SRC, "tests"))
import fieldlib  # noqa: E402

CLEAN = {name: value for name, value in os.environ.items()
         if name not in ("MMNF_LIBRARY", "LD_LIBRARY_PATH", "PYTHONPATH")}
USE = """
import sys, mmnf
field = mmnf.create(sys.argv[1], (3, 4), "int16")
field[1] = range(4)
field.close()
print(mmnf.open(sys.argv[1])[1].tolist(), mmnf.version(), mmnf.__file__)
"""


def run(*command, cwd=os.environ["TMPDIR"], **environment):
    """Status and output; elsewhere than in the package, which would be found there."""
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL,
                          env=CLEAN | {"PYTHONDONTWRITEBYTECODE": "1"} | environment,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False)
    return done.returncode, done.stdout


def expect(code, *words, of):
    status, text = of
    assert status == code, f"exit status {status}, not {code}:\n{text}"
    for word in words:
        assert word in text, f"no {word!r} in:\n{text}"
    return text


def sources():
    return sorted(os.path.relpath(os.path.join(folder, name), PACKAGE)
                  for folder, _, names in os.walk(PACKAGE) for name in names
                  if "__pycache__" not in folder)


def fresh(folder):
    """A Python with nothing but this machine's numpy, setuptools and wheel."""
    where = os.path.join(folder, "venv")
    venv.create(where)
    python = os.path.join(where, "bin", "python")
    inside = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    with open(os.path.join(inside[1].strip(), "numpy.pth"), "w", encoding="utf-8") as file:
        file.write(sysconfig.get_path("purelib") + "\n")
    return python


def pip(python, *command):
    return run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python,
               *command)


def pip_install(python, *what):
    """Builds with what is there; the tree stays as it was."""
    before = sources()
    expect(0, of=pip(python, "install", "-q", "--no-build-isolation", "--no-index", "--no-deps",
                     *what))
    assert sources() == before, set(sources()) ^ set(before)


def installed(folder):
    """pip install ./lib/python: found by MMNF_LIBRARY, beside itself and by the
    loader."""
    python = fresh(folder)
    pip_install(python, PACKAGE)
    version = open(os.path.join(SRC, "dkms.conf"), encoding="ascii").read()
    version = version.split('PACKAGE_VERSION="')[1].split('"')[0]
    expect(0, f"Version: {version}", "Requires: numpy",
           of=pip(python, "show", "mmnf"))
    text = expect(0, "[0, 1, 2, 3] " + version, "site-packages",
                  of=run(python, "-c", USE, os.path.join(folder, "a"),
                         MMNF_LIBRARY=LIB))
    package = os.path.dirname(text.split()[-1])
    assert os.path.exists(os.path.join(package, "py.typed"))
    # Unless this machine has the library installed.
    if run(python, "-c", "import ctypes; ctypes.CDLL('libmmnf.so.0')")[0]:
        expect(1, "ImportError: mmnf: no usable libmmnf; tried:",
               os.path.join(package, "libmmnf.so.0") + ": cannot open shared object file",
               "\n  libmmnf.so.0: cannot open", "make install",
               of=run(python, "-c", USE, os.path.join(folder, "b")))
    expect(0, of=run(python, "-c", USE, os.path.join(folder, "b"),
                     LD_LIBRARY_PATH=os.path.dirname(LIB)))
    os.symlink(LIB, os.path.join(package, "libmmnf.so.0"))
    expect(0, of=run(python, "-c", USE, os.path.join(folder, "c")))


def editable(folder):
    """pip install -e: the tree's files, and the tree's library."""
    python = fresh(folder)
    pip_install(python, "-e", PACKAGE)
    expect(0, PACKAGE, of=run(python, "-c", USE, os.path.join(folder, "a")))


def in_the_tree(folder):
    expect(0, PACKAGE, of=run(sys.executable, "-c", USE, os.path.join(folder, "a"),
                              PYTHONPATH=PACKAGE))


def wrong_libraries(folder):
    """Missing, no library, another library, too old, and one that lacks a function."""
    def attempt(path, *words):
        return expect(1, "ImportError", path, *words, of=run(
            sys.executable, "-c", "import mmnf", PYTHONPATH=PACKAGE, MMNF_LIBRARY=path))

    def made(name, source):
        path = os.path.join(folder, name)
        with open(path + ".c", "w", encoding="ascii") as file:
            file.write(source)
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", path, path + ".c"], check=True)
        return path

    attempt(os.path.join(folder, "absent.so"), "No such file")
    text = os.path.join(folder, "text.so")
    with open(text, "w", encoding="ascii") as file:
        file.write("no library")
    attempt(text, "file too short")
    attempt(made("other.so", "int f(void) { return 0; }"), "is not libmmnf")
    version = 'const char *mmnf_version(void) { return "%s"; }\n'
    attempt(made("old.so", version % "0.0.9"), "is version 0.0.9: expected 0.1 or later")
    attempt(made("odd.so", version % "next"), "has version 'next': expected 0.1 or later")
    attempt(made("less.so", version % "0.1.0"),
            "is version 0.1.0 and has no mmnf_last_error(): expected a later one")


def types(folder):
    """mypy --strict of the package, and of a program that uses it."""
    program = os.path.join(folder, "program.py")
    with open(program, "w", encoding="ascii") as file:
        file.write("import mmnf\nimport numpy as np\n\n"
                   "field: mmnf.Field = mmnf.open('f', writable=True)\n"
                   "rows: np.ndarray = field.gather([1, 2])\n"
                   "hot: int = field.residency().hot_bytes\n"
                   "names: list[str] = [tier.name for tier in field.tiers()]\n"
                   "wrong: int = field.engine\n")
    cache = ["--cache-dir", os.path.join(folder, "cache")]
    expect(0, "no issues found", of=run(sys.executable, "-m", "mypy", *cache,
                                        cwd=PACKAGE))
    text = expect(1, 'expression has type "str", variable has type "int"', "Found 1 error",
                  of=run(sys.executable, "-m", "mypy", *cache, program, PYTHONPATH=PACKAGE,
                         MYPYPATH=PACKAGE))
    assert "program.py:8:" in text, text


def main():
    return fieldlib.main([(test.__name__, test, ()) for test in (
        installed, editable, in_the_tree, wrong_libraries, types)])


if __name__ == "__main__":
    sys.exit(main())
