"""Known vulnerabilities of the tested versions, by pip-audit; what it could not look up is a failure.

Usage:
    python -m benchmarks.audit PIP_AUDIT [CONSTRAINTS]     make audit
    python -m benchmarks.audit --if-reachable PIP_AUDIT    make audit AUDIT=--if-reachable

PIP_AUDIT is its program, from an environment of its own. Where its advisory service cannot be reached it
skips every package, says "No known vulnerabilities found" and ends with 0: here that is an error, or with
--if-reachable a line that nothing was audited.
"""

import json
import subprocess
import sys

IF_REACHABLE = "--if-reachable"
NOTHING = "nothing was audited: "
ALONE = ["--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json"]


def main(arguments: list[str]) -> int:
    """Audit the packages of a constraints file; return the exit code."""
    names = [text for text in arguments if text != IF_REACHABLE]
    program, constraints = [*names, "constraints.txt"][:2]
    command = [program, "-r", constraints, *ALONE]
    result = subprocess.run(command, capture_output=True, text=True)
    problems = problems_of(result.stdout, result.stderr)
    for line in problems or ["no known vulnerability"]:
        print(line)
    if IF_REACHABLE in arguments and len(problems) == 1 and problems[0].startswith(NOTHING):
        return 0
    return 1 if problems else 0


def problems_of(found: str, said: str) -> list[str]:
    """Return what is wrong, a line each; none where every package was looked up and has no advisory.

    Args:
        found: what pip-audit wrote, JSON.
        said: its messages.
    """
    try:
        packages = json.loads(found)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return [f"pip-audit gave no result: {' '.join(said.split())[-300:] or 'it said nothing'}"]
    if not packages:
        return ["pip-audit looked at no package"]
    problems, skipped = [], [package for package in packages if "skip_reason" in package]
    if skipped:
        none = NOTHING if len(skipped) == len(packages) else ""
        problems.append(
            f"{none}{len(skipped)} of {len(packages)} packages were skipped; the advisory service could "
            f"not be reached, or does not know them ({skipped[0]['skip_reason']}); run this where it can be"
        )
    for package in packages:
        for advisory in package.get("vulns", []):
            mended = ", ".join(advisory.get("fix_versions", [])) or "no version"
            name = f"{package['name']} {package['version']}"
            problems.append(f"{name}: {advisory['id']}, mended in {mended}")
    return problems


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
