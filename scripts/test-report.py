#!/usr/bin/env python3
"""Names the flaky tests of a run with their rates, and counts the skipped ones apart from the passed ones.

    scripts/test-report.py target/nextest/default/junit.xml

A test is flaky if it failed and then passed. A test that cannot run in its environment prints a line `skipped: <why>` and
returns; the test runner counts it as passed.
"""
import collections
import sys
import xml.etree.ElementTree as ET


def main() -> None:
    passed = failed = 0
    flaky, skipped = [], collections.defaultdict(list)
    for suite in ET.parse(sys.argv[1]).getroot().iter("testsuite"):
        for case in suite.iter("testcase"):
            name = f"{suite.get('name')} {case.get('name')}"
            if case.find("failure") is not None or case.find("error") is not None:
                failed += 1
                continue
            output = "".join(part.text or "" for part in case.iter("system-out"))
            reasons = [line.removeprefix("skipped: ") for line in output.splitlines() if line.startswith("skipped: ")]
            if reasons:
                skipped[reasons[0]].append(name)
                continue
            passed += 1
            tries = len(case.findall("flakyFailure")) + len(case.findall("flakyError"))
            if tries:
                flaky.append((tries / (tries + 1), tries, name))
    for rate, tries, name in sorted(flaky, reverse=True):
        print(f"flaky: {name}: {tries} of {tries + 1} tries failed ({rate:.0%})")
    for why, names in sorted(skipped.items()):
        print(f"skipped ({len(names)}): {why}")
        for name in names:
            print(f"    {name}")
    total = sum(map(len, skipped.values()))
    print(f"tests: {passed} passed, {len(flaky)} of them flaky; {failed} failed; {total} skipped")


main()
