# SPDX-License-Identifier: MIT
"""Reading KTAP, as ktap.h, Linux 6.1's kselftest_harness.h and our lint print
it.  A report is believed only if it is complete: see cases().
"""
import re
from dataclasses import dataclass, field

RESULT = re.compile(r"(not )?ok\b\s*(\d+)?\s*(?:-\s*)?(.*)$")
PLAN = re.compile(r"1\.\.(\d+)(?:\s*#\s*SKIP\b\s*(.*))?", re.IGNORECASE)
# kselftest's harness gives a skipped test no name: it stands on the line that
# announced it.
RUN = re.compile(r"#\s+RUN\s+(\S+)")
SKIP = 4


@dataclass
class Case:
    name: str
    verdict: str                # "passed", "failed", "skipped"
    reason: str = ""
    lines: list = field(default_factory=list)


def parse(output):
    """The cases in the output, the plan (None if there is none), and the reason
    if the whole program was skipped or bailed out."""
    cases, pending = [], []
    plan = announced = None
    whole = ""
    for line in output.splitlines():
        match = PLAN.match(line)
        if match:
            plan = int(match[1])
            whole = match[2] or whole
            continue
        if line.lower().startswith("bail out!"):
            whole = line
        match = RUN.match(line)
        if match:
            announced = match[1]
        match = RESULT.match(line)
        if not match:
            if not re.match(r"K?TAP version", line):
                pending.append(line)
            continue
        name, _, directive = match[3].partition("#")
        name = name.strip() or announced or f"case {match[2]}"
        case = Case(name, "failed" if match[1] else "passed", lines=pending)
        directive = directive.strip()
        if directive.upper().startswith("SKIP") and not match[1]:
            case.verdict = "skipped"
            case.reason = directive[4:].strip()
        cases.append(case)
        pending, announced = [], None
    return cases, plan, whole, pending


def cases(output, status, note=""):
    """What a program proved.  `status` is its exit status, negative for a
    signal; `note` says why it was ended, if it was.  A program without KTAP is
    one case with no name.  One that says less than it planned, ends with a
    status its report does not explain, or reports nothing has failed."""
    found, plan, whole, rest = parse(output)
    if not found and plan is None and not note:
        lines = output.splitlines()
        if status == 0:
            return [Case("", "passed", lines=lines)]
        if status == SKIP:
            return [Case("", "skipped", whole or (lines or ["no reason"])[-1])]
        return [Case("", "failed", how(status), lines)]
    if not found and status == SKIP and not note:
        reason = whole or (rest or ["no reason"])[-1].lstrip("# ")
        return [Case("", "skipped", reason)]

    failed = any(case.verdict == "failed" for case in found)
    problem = note
    if not problem and whole:
        problem = whole
    if not problem and plan is None:
        problem = "printed no plan"
    if not problem and len(found) != plan:
        problem = f"planned {plan} cases, reported {len(found)}"
        if status:
            problem += f", {how(status)}"
    if not problem and not found:
        problem = "ran no case"
    if not problem and status not in (0, SKIP) and not failed:
        problem = how(status)
    if not problem and status < 0:
        problem = how(status)
    if problem:
        found.append(Case("", "failed", problem, rest))
    return found


def how(status):
    return f"signal {-status}" if status < 0 else f"exit status {status}"
