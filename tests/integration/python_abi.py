#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""lib/python/mmnf/_abi.py is include/mmnf.h: sizes, offsets and numbers as a C
compiler has them, prototypes by the number of their arguments.  KTAP.

The header may know more: a struct may have grown at its end, an enum too.
"""
import ctypes
import os
import re
import subprocess
import sys

SRC, TMP = os.environ["MMNF_SRC"], os.environ["TMPDIR"]
os.environ["MMNF_LIBRARY"] = os.environ["MMNF_LIB"]
sys.path[:0] = [os.path.join(SRC, "tests"), os.path.join(SRC, "lib", "python")]
from toollib import run_tests  # noqa: E402
try:
    from mmnf import _abi
except ImportError as missing:
    if missing.name not in ("numpy", "ml_dtypes"):
        raise
    print(f"1..0 # SKIP {missing}: tests/deps.sh test")
    print(missing)
    sys.exit(4)

STRUCTS = {
    "CreateOpts": "mmnf_create_opts", "OpenOpts": "mmnf_open_opts", "Box": "mmnf_box",
    "FieldInfo": "mmnf_field_info", "GuardOpts": "mmnf_guard_opts",
    "BatchOpts": "mmnf_batch_opts", "Request": "mmnf_request",
    "Completion": "mmnf_completion", "VerifyOpts": "mmnf_verify_opts",
    "VerifyResult": "mmnf_verify_result", "Residency": "mmnf_residency",
    "FieldStats": "mmnf_field_stats", "NetStats": "mmnf_net_stats",
    "Tier": "mmnf_tier", "Tiers": "mmnf_tiers",
    "GpuOpts": "mmnf_gpu_opts", "GpuStats": "mmnf_gpu_stats", "Selection": "mmnf_selection"}
# Structs that stand in arrays or have no size of their own can't grow.
FIXED = ("Box", "Request", "Completion", "Tier")
ENUMS = {"DTYPES": "MMNF_", "ENGINES": "MMNF_ENGINE_", "URINGS": "MMNF_URING_",
         "L2_POLICIES": "MMNF_L2_", "GPU_PATHS": "MMNF_GPU_PATH_"}


def compiled(lines):
    """What a C program with these printf arguments says."""
    source = os.path.join(TMP, "abi.c")
    with open(source, "w", encoding="ascii") as file:
        file.write("#include <mmnf.h>\n#include <stdio.h>\nint main(void)\n{\n")
        file.writelines(f'\tprintf("%llu\\n", (unsigned long long)({line}));\n' for line in lines)
        file.write("}\n")
    subprocess.run(["gcc", "-I" + os.path.join(SRC, "include"), source, "-o", source + ".out"],
                   check=True)
    done = subprocess.run([source + ".out"], stdout=subprocess.PIPE, text=True, check=True)
    return [int(line) for line in done.stdout.split()]


def structs():
    asked, ours = [], []
    for name, theirs in STRUCTS.items():
        struct = getattr(_abi, name)
        for field, *_ in struct._fields_:
            asked += [f"offsetof(struct {theirs}, {field})",
                      f"sizeof(((struct {theirs} *)0)->{field})"]
            ours += [getattr(struct, field).offset, getattr(struct, field).size]
        asked.append(f"sizeof(struct {theirs})")
        ours.append(ctypes.sizeof(struct))
    for what, mine, header in zip(asked, ours, compiled(asked)):
        may_grow = what.startswith("sizeof(struct") and not any(
            what == f"sizeof(struct {STRUCTS[name]})" for name in FIXED)
        assert mine == header or may_grow and mine < header, f"{what}: {mine}, not {header}"
    with open(os.path.join(SRC, "lib", "python", "mmnf", "_abi.py"), encoding="ascii") as file:
        named = set(re.findall(r"^class (\w+)\(c\.Structure\)", file.read(), re.MULTILINE))
    assert named == set(STRUCTS), f"structs not looked at: {named ^ set(STRUCTS)}"


def enums():
    names = {prefix + name.upper(): number for table, prefix in ENUMS.items()
             for name, number in getattr(_abi, table).items()}
    names |= {"MMNF_NDIM_MAX": _abi.NDIM_MAX, "MMNF_TIERS_MAX": _abi.TIERS_MAX}
    for name, header in zip(names, compiled(names)):
        assert names[name] == header, f"{name}: {names[name]}, not {header}"


def prototypes():
    with open(os.path.join(SRC, "include", "mmnf.h"), encoding="ascii") as file:
        header = re.sub(r"/\*.*?\*/", "", file.read(), flags=re.DOTALL)
    for name, (result, arguments) in _abi.PROTOTYPES.items():
        found = re.search(r"MMNF_API([^;(]*?)\b" + name + r"\((.*?)\);", header, re.DOTALL)
        assert found, f"{name} is not in mmnf.h"
        inside = re.sub(r"\([^()]*\)\([^()]*\)", "", found[2])
        number = 0 if inside.strip() == "void" else inside.count(",") + 1
        assert number == len(arguments), f"{name}: {len(arguments)} arguments, not {number}"
        kind = found[1].split()
        wanted = {"ssize_t": ctypes.c_ssize_t, "int": ctypes.c_int, "void": None,
                  "uint64_t": ctypes.c_uint64}
        expected = (wanted[kind[-1]] if kind[-1] in wanted else
                    ctypes.c_char_p if "char" in kind else ctypes.c_void_p)
        assert result is expected, f"{name}: gives {result}, not {' '.join(kind)}"


if __name__ == "__main__":
    sys.exit(run_tests((structs, enums, prototypes), fresh=False))
