#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""--help, the man page and what the shells complete agree; the shells are asked.
TAP.
"""
import os
import re
import shutil
import subprocess
import sys

SRC = os.environ["MMNF_SRC"]
sys.path.insert(0, os.path.join(SRC, "tests"))
from toollib import MMNF, ok, refused, run_tests  # noqa: E402

tests = []


def test(function):
    tests.append(function)
    return function


def by_help():
    """Each command and its options, by --help."""
    commands = ok("--help").split("\n\n")[1]
    names = re.findall(r"^  ([a-z]+) ", commands, re.MULTILINE)
    found = {}
    for name in names:
        text = ok(name, "--help")
        assert text.startswith(f"usage: mmnf {name} "), text
        found[name] = set(re.findall(r"--([a-z][a-z-]*)", text.split("\n\n")[0]))
    return found


def by_man(commands):
    """The same by mmnf.1: what the items' heads and what their texts name."""
    with open(os.path.join(SRC, "tools/mmnf.1"), encoding="utf-8") as file:
        body = file.read()
    # A head over several lines becomes one of one line.
    body = re.sub(r"^\.It Xo\n(.*?)\n\.Xc$",
                  lambda m: ".It " + re.sub(r"(^|\n)\.", " ", m[1]).strip(), body,
                  flags=re.MULTILINE | re.DOTALL)
    heads, texts = {}, {}
    for item in re.split(r"^\.It Cm ", body, flags=re.MULTILINE)[1:]:
        head, _, text = item.partition("\n")
        text = text.split("\n.El")[0].split("\n.Sh")[0]
        name = head.split()[0]
        if name not in commands:
            continue
        options = re.compile(r"Fl -([a-z][a-z-]*)")
        heads.setdefault(name, set()).update(options.findall(head))
        texts.setdefault(name, set()).update(options.findall(head + text))
    # What any field on the network may need is told once.
    everywhere = set(re.findall(r"^\.Fl -((?:net|tls)-[a-z-]+)", body, re.MULTILINE))
    return heads, texts, everywhere


@test
def every_command_has_help():
    names = by_help()
    assert len(names) >= 20 and "top" in names, names
    refused(2, "there is no --at here", "info", "f", "--at", "3")


@test
def help_and_man_page_agree():
    found = by_help()
    heads, texts, everywhere = by_man(found)
    assert set(found) == set(heads), set(found) ^ set(heads)
    for name, options in found.items():
        options = options - {"json"} - everywhere
        assert options <= texts[name], f"mmnf.1 {name}: no {options - texts[name]}"
        assert heads[name] <= options | {"json"}, \
            f"mmnf {name} --help: no {heads[name] - options}"


def bash(*words):
    """What bash would complete the last of the words to."""
    script = ok("completion", "bash") + \
        "COMP_WORDS=(" + " ".join(f"'{w}'" for w in words) + \
        f"); COMP_CWORD={len(words) - 1}; _mmnf; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", script], text=True, check=True,
                          stdout=subprocess.PIPE)
    return {word for word in done.stdout.split("\n") if word}


@test
def bash_completes_them():
    found = by_help()
    assert bash("mmnf", "") == set(found) | {"--help", "--version"}
    assert bash("mmnf", "to") == {"top"}
    for name, options in found.items():
        assert bash("mmnf", name, "--") == \
            {f"--{option}" for option in options | {"help"}}, name
    assert bash("mmnf", "scan", "f", "--engine", "d") >= {"device", "direct"}
    open("field.npy", "w", encoding="ascii").close()
    assert bash("mmnf", "info", "fie") == {"field.npy"}


@test
def fish_completes_them():
    fish = shutil.which("fish")
    if not fish:
        print("# no fish")
        return
    with open("mmnf.fish", "w", encoding="utf-8") as out:
        out.write(ok("completion", "fish"))
    env = dict(os.environ, HOME=os.getcwd())

    def complete(line):
        done = subprocess.run(
            [fish, "-N", "-c", f"source mmnf.fish; complete -C '{line}'"], text=True,
            check=True, stdout=subprocess.PIPE, env=env)
        return {row.split("\t")[0] for row in done.stdout.splitlines()}

    found = by_help()
    assert complete("mmnf ") == set(found), complete("mmnf ") ^ set(found)
    for name in ("create", "map", "top", "predict"):
        assert complete(f"mmnf {name} --") == \
            {f"--{option}" for option in found[name] | {"help"}}, name
    assert complete("mmnf export a b --format n") >= {"npy", "nrrd", "nifti"}


@test
def zsh_can_read_them():
    text = ok("completion", "zsh")
    for name, options in by_help().items():
        part = text.split(f"\n{name})\n")[1].split(";;")[0]
        assert set(re.findall(r"'--([a-z-]+)", part)) == options | {"help"}, name
    zsh = shutil.which("zsh")
    if zsh:
        with open("_mmnf", "w", encoding="utf-8") as out:
            out.write(text)
        subprocess.run([zsh, "-n", "_mmnf"], check=True)
    else:
        print("# no zsh")


@test
def bad_input_is_named():
    refused(2, "expected bash, zsh or fish", "completion", "tcsh")
    assert os.path.exists(MMNF)


sys.exit(run_tests(tests))
