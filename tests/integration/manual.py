#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What README.md and the man pages tell people to type and to compile works as it
stands there.  The files that they name are made here, small.  What needs the
device, a server or a terminal is left out by name; nothing else is.  KTAP.
"""
import os
import re
import shlex
import shutil
import subprocess
import sys

SRC = os.environ["MMNF_SRC"]
BUILD = os.environ["MMNF_BUILD"]
sys.path.insert(0, os.path.join(SRC, "tests"))
try:
    import nibabel
    import numpy as np
    from safetensors.numpy import save_file
except ImportError as missing:
    print(f"1..0 # SKIP {missing}: tests/deps.sh test")
    print(missing)
    sys.exit(4)
from toollib import MMNF, ok, run_tests  # noqa: E402

INCLUDES = ["-I" + os.path.join(SRC, "include"),
            "-I" + os.path.join(SRC, "include", "uapi")]
# Begins with, and how it ends where that is no success.
STATUS = {"mmnf stat": 0 if os.path.exists("/sys/class/misc/mmnf/fields") else 1,
          "mmnf doctor": (0, 1)}
LEFT_OUT = ("mmnf nbd ", "mmnf record ", "mmnf predict trace", "mmnf scan /dev/nbd0",
            "rbd ", "qemu-nbd ", "make ", "sudo ", "cc ")
tests = []


def test(function):
    tests.append(function)
    return function


def text_of(*path):
    with open(os.path.join(SRC, *path), encoding="utf-8") as file:
        return file.read()


def section(text, head):
    """Of README.md: from a heading to the next."""
    return re.search(rf"^## {head}\n(.*?)(?=^## |\Z)", text, re.M | re.S)[1]


def literals(page):
    """The examples of a man page, one text each."""
    return re.findall(r"^\.Bd -literal[^\n]*\n(.*?)^\.Ed$", page, re.M | re.S)


def make_files():
    """A brain of the size that the commands say, of ones, and the others."""
    os.makedirs("build/quickstart")
    os.symlink(MMNF, "build/mmnf")
    brain = np.ones((168, 206, 128), "f4")
    nibabel.save(nibabel.Nifti1Image(brain, np.eye(4)), "brain.nii")
    os.symlink("../../brain.nii", "build/quickstart/brain.nii")
    save_file({"wte": np.ones((1000, 8), "f4")}, "model.safetensors")
    ok("create", "build/quickstart/words.zarr", "--shape", "86000000000,1000",
       "--dtype", "f32")


def run_commands(text, least):
    """Each line in turn, a backslash at its end joins the next; their outputs."""
    said = {}
    for line in text.replace("\\\n", " ").replace("\\e\n", " ").splitlines():
        line = re.split(r" {3,}", line.strip())[0].removeprefix("build/")
        if not line.startswith("mmnf ") and not line.startswith(LEFT_OUT):
            continue
        if line.startswith(LEFT_OUT):
            print(f"# left out: {line}")
            continue
        done = subprocess.run([MMNF, *shlex.split(line)[1:]], text=True, check=False,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=120)
        wanted = next((s for start, s in STATUS.items() if line.startswith(start)), 0)
        assert done.returncode in np.atleast_1d(wanted), \
            f"{line}: {done.returncode}: {done.stderr}"
        said[line] = done.stdout
    assert len(said) >= least, said.keys()
    return said


def compiled(name, source):
    with open(name + ".c", "w", encoding="utf-8") as out:
        out.write(source)
    subprocess.run(["cc", "-std=gnu11", "-Wall", "-Werror", *INCLUDES, name + ".c", "-o",
                    name, "-L" + BUILD, "-lmmnf", "-Wl,-rpath," + BUILD], check=True)
    return "./" + name


@test
def readme_commands():
    make_files()
    said = run_commands(section(text_of("README.md"), "The tool"), 12)
    scanned = next(text for line, text in said.items() if line.startswith("mmnf scan c"))
    # All of the brain is ones.
    assert re.search(rf"^sum +{128 * 206 * 168}\.0$", scanned, re.M), scanned
    got = next(text for line, text in said.items() if line.startswith("mmnf get"))
    assert got == "1\n" * 5, got
    assert np.load("vectors.npy").shape == (2, 1000)
    assert os.path.getsize("cortex.png") > 1000


@test
def readme_programs():
    library = section(text_of("README.md"), "The library in one screen")
    program = compiled("example", re.search(r"```c\n(.*?)```", library, re.S)[1])
    assert subprocess.check_output([program], text=True) == "42\n"
    command = re.search(r"^ +build/env/bin/python (.*)$", library, re.M)[1]
    env = dict(os.environ, PYTHONPATH=os.path.join(SRC, "lib", "python"),
               MMNF_LIBRARY=os.environ["MMNF_LIB"])
    told = subprocess.check_output([sys.executable, *shlex.split(command)], env=env, text=True)
    assert told == "[42.  0.  0.  0.]\n", told
    device = re.search(r"```c\n(.*?)```", section(text_of("README.md"), "The device"), re.S)
    compile_device(device[1], "int file = 0; uint64_t rows = 2, columns = 2;")


def compile_device(source, before):
    """Statements for the device, which is not here: they compile."""
    compiled("device", "#include <err.h>\n#include <fcntl.h>\n#include <linux/mmnf.h>\n"
             "#include <stddef.h>\n#include <stdint.h>\n"
             "#include <sys/ioctl.h>\n#include <sys/mman.h>\n"
             f"int main(void)\n{{\n{before}\n{source}\nreturn (int)m[0];\n}}\n")


@test
def manual_of_the_tool():
    make_files()
    run_commands(literals(text_of("tools", "mmnf.1"))[-1], 8)
    assert np.load("crop.npy").shape[:2] == (64, 64)


@test
def manual_of_the_library():
    make_files()
    example = [b for b in literals(text_of("lib", "mmnf.3")) if "mmnf_activate" in b][0]
    program = compiled("library", library_source(example))
    ok("create", "cortex", "--shape", "1000000,1000000,256", "--dtype", "f32")
    ok("import", "brain.nii", "cortex", "--at", "500000,500000,0")
    assert subprocess.check_output([program], text=True) == "1\n"


def library_source(example):
    """roff writes a backslash as backslash e."""
    return ("#include <err.h>\n#include <mmnf.h>\n#include <stdio.h>\nint main(void)\n{\n" +
            example.replace("\\e", "\\") + "}\n")


@test
def manual_of_the_device():
    source = "".join(b for b in literals(text_of("kmod", "mmnf.4"))
                     if "ioctl(dev, MMNF_IOC_" in b and "_init" not in b)
    assert "MMNF_IOC_ATTACH" in source and "MMNF_IOC_PREFETCH" in source, source
    compile_device(source, "double sum = 0;")


@test
def numbers_of_the_device():
    """Limits and defaults in mmnf.4 are those of the sources."""
    page = text_of("kmod", "mmnf.4")
    sources = text_of("kmod", "internal.h") + text_of("lib", "core", "predict.h")
    defaults = text_of("lib", "core", "table.c")

    def said(pattern):
        words = re.search(pattern, page, re.M)[1].replace(",", "").split()
        return int(words[0]) << (20 if words[1:] == ["MiB"] else 0)

    def meant(text, pattern):
        value = re.search(pattern, text)[1].strip("()").replace("U", "").replace("L", "")
        number, _, shift = value.partition(" << ")
        return int(number) << int(shift or 0)

    for words, name in ((r"one selection, (.*)\.$", "MAX_ITEMS"),
                        (r"per field, (.*)\.$", "NR_STREAMS"),
                        (r"^in a policy, (\d+)\.$", "MAX_DEPTH"),
                        (r"dropped because (\d+) ", "QUEUE_PLANS")):
        assert said(words) == meant(sources, rf"define MMNF_{name} (.*)"), name
    for name in ("min_depth", "max_depth", "max_window_bytes", "max_inflight_bytes"):
        words = rf"^\.It Va {name}\n(?:(?!\.It).*\n)*?Default (.*)\.$"
        assert said(words) == meant(defaults, rf"\.{name} = (.*),"), name


@test
def manuals_of_the_whole():
    make_files()
    run_commands("".join(literals(text_of("tools", "mmnf.7"))), 5)
    shutil.rmtree("cortex")
    creates = "".join(literals(text_of("lib", "mmnf-net.7")))
    made = []
    for lines in re.findall(r"^mmnf create (?:.*\\e?\n)*.*$", creates, re.M):
        name = lines.split()[2]
        run_commands(lines.replace(f"create {name} ", f"create made{len(made)} "), 1)
        made.append(name)
    assert len(made) >= 2, creates


sys.exit(run_tests(tests))
