#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The rules that the sources keep: what is wrong is printed, nothing is changed.

    tests/lint.py               all rules, KTAP
    tests/lint.py clang-format  one, told by the exit status: 0 kept, 1 broken,
                                4 skipped with the reason on the last line
    tests/lint.py -l            their names
"""
import fnmatch
import os
import re
import shutil
import subprocess
import sys

SRC = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CHECKPATCH = "build/linux/scripts/checkpatch.pl"
MAX_LINES = 600
# A program includes one header, whatever it needs.
MAX_LINES_OF = {"include/mmnf.h": 1200}
RULES = {}

# checkpatch is right about patches to the kernel; not here:
CHECKPATCH_IGNORE = {
    "LINUX_VERSION_CODE": "the rule kernel-versions is exact",
    "CONSTANT_COMPARISON": "takes KERNEL_VERSION() for the constant side",
    "PREFER_KERNEL_TYPES": "lib/core/port.h is where user space gets them",
    "BIT_MACRO": "bytes are no bit masks; the ABI header can't include it",
    "CONST_STRUCT": "the host's vm_operations_struct is copied and changed",
    "MACRO_ARG_REUSE": "names and tokens, not expressions",
    "MACRO_ARG_PRECEDENCE": "names and tokens, not expressions",
    "UNNECESSARY_PARENTHESES": "gcc wants some of these",
    "OPEN_ENDED_LINE": "clang-format's decision",
    "PARENTHESIS_ALIGNMENT": "clang-format's decision",
}

# What cppcheck gets wrong here:
CPPCHECK_SUPPRESS = {
    "zerodivcond": "a box's step is never zero",
    "shiftTooManyBitsSigned": "does not see the condition before the shift",
    "autoVariables": "who waits is on its own stack, and leaves the list",
    "nullPointerRedundantCheck": "does not know that errx() ends the program",
}


class Skip(Exception):
    pass


def rule(function):
    """The function's lines are what is wrong; none: the rule is kept."""
    RULES[function.__name__.replace("_", "-")] = function
    return function


def files(*patterns):
    """Sources whose path matches, without what is built or fetched."""
    found = []
    for folder, folders, names in os.walk(SRC):
        if folder == SRC:
            folders[:] = [f for f in folders if f not in ("build", ".git")]
        folders[:] = [f for f in folders if f != "__pycache__"]
        paths = [os.path.relpath(os.path.join(folder, n), SRC) for n in names]
        found += [p for p in paths
                  if any(fnmatch.fnmatch(p, pattern) for pattern in patterns)]
    return sorted(found)


def read(path):
    with open(os.path.join(SRC, path), encoding="utf-8") as file:
        return file.read()


def tool(name):
    if not shutil.which(name):
        raise Skip(f"no {name}: tests/deps.sh lint")
    return name


def output(*command, env=None):
    """What the command printed, both streams; and its status."""
    done = subprocess.run(command, cwd=SRC, stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.STDOUT, errors="replace",
                          env=env, check=False)
    return done.stdout.splitlines(), done.returncode


def complaints(*command):
    """The command's output if it failed."""
    lines, status = output(*command)
    return (lines or [f"exit status {status}"]) if status else []


@rule
def clang_format():
    tool("clang-format")
    for path in files("*.c", "*.h", "*.cc"):
        done = subprocess.run(["clang-format", path], cwd=SRC, check=True,
                              stdout=subprocess.PIPE, text=True)
        if done.stdout != read(path):
            yield f"{path}: clang-format -i {path}"


@rule
def checkpatch():
    if not os.path.exists(os.path.join(SRC, CHECKPATCH)):
        raise Skip("no checkpatch.pl: tests/deps.sh lint")
    paths = files("kmod/*.[ch]", "include/uapi/*.h", "lib/core/*.[ch]")
    lines, status = output("perl", CHECKPATCH, "--no-tree", "--strict",
                           "--terse", "--show-types", "--no-summary",
                           "--ignore", ",".join(CHECKPATCH_IGNORE),
                           "-f", *paths)
    return lines if status else []


def module_build(name, *options, target="modules", folder_var="KMOD_DIR"):
    """Warnings of a build of the module in a folder of its own."""
    folder = f"build/lint/{name}"
    shutil.rmtree(os.path.join(SRC, folder), ignore_errors=True)
    lines, status = output("make", "-s", target, f"{folder_var}={folder}",
                           *options)
    if any("no kernel headers" in line for line in lines):
        raise Skip("no kernel headers: tests/deps.sh build")
    return lines[-40:] if status else [
        line for line in lines if re.search(r"(warning|error):", line)]


@rule
def kernel_warnings():
    return module_build("w1", "W=1")


@rule
def kunit_warnings():
    """Compiled for this kernel, too, which need not have KUnit to link with."""
    return module_build("kunit", "W=1", "KBUILD_MODPOST_WARN=1", target="kunit",
                        folder_var="KUNIT_DIR")


@rule
def sparse():
    tool("sparse")
    return module_build("sparse", "C=2")


@rule
def cppcheck():
    tool("cppcheck")
    folders = [f for f in ("lib", "tools", "tests/bench")
               if files(f + "/*.c")]
    return complaints("cppcheck", "--quiet", "--error-exitcode=1",
                      "--enable=warning,portability,performance",
                      "--std=c11", "--inline-suppr",
                      *(f"--suppress={name}" for name in CPPCHECK_SUPPRESS),
                      "-Iinclude", "-Iinclude/uapi", "-Ilib", *folders)


@rule
def shellcheck():
    return complaints(tool("shellcheck"), *files("*.sh", ".ci/run"))


@rule
def man_pages():
    tool("mandoc")
    tool("groff")
    for path in files("*.[1-9]"):
        yield from complaints("mandoc", "-T", "lint", "-W", "warning", path)
        yield from output("groff", "-ww", "-z", "-mandoc", "-Tutf8", path)[0]


@rule
def headers():
    """The public headers stand alone, in C and in C++."""
    common = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only",
              "-Iinclude/uapi"]
    for header in ("include/mmnf.h", "include/uapi/linux/mmnf.h"):
        for compiler, language, standard in (
                ("gcc", "c", "c99"), ("gcc", "c", "c17"),
                ("g++", "c++", "c++11"), ("g++", "c++", "c++20"),
                ("clang", "c", "c99"), ("clang", "c++", "c++11")):
            if shutil.which(compiler):
                yield from complaints(compiler, "-x", language, *common,
                                      f"-std={standard}", "-include", header,
                                      "/dev/null")


@rule
def file_length():
    for path in files("*.c", "*.h", "*.cc", "*.py", "*.sh", "Makefile",
                      "tests/run"):
        count = read(path).count("\n")
        most = MAX_LINES_OF.get(path, MAX_LINES)
        if count > most:
            yield f"{path}: {count} lines, at most {most}"


@rule
def licences():
    """The SPDX line of every source, as its folder wants it."""
    wanted = [
        ("include/uapi/", "(GPL-2.0 WITH Linux-syscall-note) OR MIT"),
        ("lib/core/", "GPL-2.0 OR MIT"),
        ("kmod/", "GPL-2.0-only"),
        ("Kbuild", "GPL-2.0-only"),
        ("tests/kselftest/", "GPL-2.0"),
        ("tests/kunit/", "GPL-2.0-only"),
        ("", "MIT"),
    ]
    for path in files("*.c", "*.h", "*.cc", "*.py", "*.sh", "*.[1-9]",
                      "*.map", "*.rules", "*.pc.in", "Makefile", "Kbuild",
                      "dkms.conf", "tests/run", ".ci/run"):
        want = next(licence for folder, licence in wanted
                    if path.startswith(folder))
        head = "\n".join(read(path).splitlines()[:3])
        found = re.search(r"SPDX-License-Identifier: (.*?)(?: \*/)?$", head,
                          re.MULTILINE)
        if not found or found[1] != want:
            yield f"{path}: SPDX-License-Identifier: {want}"


def only_in(pattern, where):
    for path in files("*.c", "*.h", "*.cc"):
        if not any(fnmatch.fnmatch(path, place) for place in where):
            for number, line in enumerate(read(path).splitlines(), start=1):
                if re.search(pattern, line):
                    yield f"{path}:{number}: {line.strip()}"


@rule
def kernel_versions():
    return only_in(r"\b(LINUX_VERSION_CODE|KERNEL_VERSION)\b",
                   ["kmod/compat.h"])


@rule
def kernel_or_not():
    return only_in(r"\b__KERNEL__\b", ["lib/core/port.h", "include/uapi/*"])


@rule
def cuda_names():
    """Whatever CUDA does is asked for in one file."""
    return only_in(r"\bcu(Init|Device|Ctx|Mem|Stream|Event|Module|Launch"
                   r"|Pointer|Get|Driver)\w*\(",
                   ["lib/cuda-dl.c", "tests/fakecuda/*"])


def api():
    return set(re.findall(r"^MMNF_API[^;(]*?\b(mmnf_\w+)\(",
                          read("include/mmnf.h"), re.MULTILINE))


@rule
def symbols_in_map():
    exported = set(re.findall(r"^\t(mmnf_\w+);", read("lib/mmnf.map"),
                              re.MULTILINE))
    for name in sorted(api() - exported):
        yield f"lib/mmnf.map: {name} of mmnf.h is missing"
    for name in sorted(exported - api()):
        yield f"lib/mmnf.map: {name} is not in mmnf.h"


@rule
def symbols_in_manual():
    """Its list has every function of the header, and it names no other."""
    text = read("lib/mmnf.3")
    inline = set(re.findall(r"^static inline[^;(]*?\b(mmnf_\w+)\(",
                            read("include/mmnf.h"), re.MULTILINE))
    public = api() | inline
    listed = re.findall(r"^\.It Fn (mmnf_\w+)", text, re.MULTILINE)
    named = re.findall(r"\bF[no] (mmnf_\w+)", text)
    for name in sorted(public - set(listed)):
        yield f"lib/mmnf.3: {name}() is missing"
    for name in sorted(set(named) - public):
        yield f"lib/mmnf.3: {name}() is not in mmnf.h"
    for name in sorted(set(listed)):
        if listed.count(name) > 1:
            yield f"lib/mmnf.3: {name}() is listed more than once"


@rule
def unit_tests():
    for path in files("tests/unit/*.c", "tests/unit/*.cc"):
        if not re.search(r"^TEST\(", read(path), re.MULTILINE):
            yield f"{path}: no TEST"


def check(name):
    """Status of one rule; prints what is wrong."""
    try:
        wrong = list(RULES[name]() or [])
    except Skip as skip:
        print(skip)
        return 4
    for line in wrong:
        print(f"# {line}")
    return 1 if wrong else 0


def main(names):
    if names == ["-l"]:
        print(*RULES, sep="\n")
        return 0
    if names and not set(names) <= set(RULES):
        print(__doc__, file=sys.stderr)
        return 2
    if len(names) == 1:
        return check(names[0])
    names = names or list(RULES)
    print(f"KTAP version 1\n1..{len(names)}")
    statuses = []
    for number, name in enumerate(names, start=1):
        statuses.append(check(name))
        broken = "not " if statuses[-1] == 1 else ""
        skipped = " # SKIP" if statuses[-1] == 4 else ""
        print(f"{broken}ok {number} {name}{skipped}", flush=True)
    return 1 if 1 in statuses else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
