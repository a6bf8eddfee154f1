"""Runs the tests of this folder side by side: most of what they do is wait for time to pass.

A thread for each, with an event loop of its own as `unittest` gives it. What is printed is what `python -m unittest -v`
prints, in the order in which they end.
"""

import sys
import unittest
from concurrent.futures import ThreadPoolExecutor, as_completed
from time import monotonic

AT_ONCE = 16


def each(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from each(test)
        else:
            yield test


def run(test):
    result = unittest.TestResult()
    test.run(result)
    return test, result


def verdict(result):
    if not result.wasSuccessful():
        return "FAIL"
    return "skipped" if result.skipped else "ok"


def main():
    start, results = monotonic(), []
    tests = list(each(unittest.defaultTestLoader.discover(".")))
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for done in as_completed([threads.submit(run, test) for test in tests]):
            test, result = done.result()
            print(f"{test} ... {verdict(result)}", flush=True)
            results.append(result)
    for kind in ("errors", "failures"):
        for result in results:
            for test, trace in getattr(result, kind):
                print(f"\n{'ERROR' if kind == 'errors' else 'FAIL'}: {test}\n{trace}")
        for result in results:
            if kind == "failures" and result.unexpectedSuccesses:
                print(f"\nFAIL: {result.unexpectedSuccesses[0]}\nit was expected to fail")
    count = {
        kind: sum(len(getattr(result, kind)) for result in results)
        for kind in ("failures", "errors", "skipped", "unexpectedSuccesses")
    }
    print(f"\nRan {len(tests)} tests in {monotonic() - start:.3f}s\n")
    bad = {
        "failures": count["failures"] + count["unexpectedSuccesses"],
        "errors": count["errors"],
        "skipped": count["skipped"],
    }
    told = ", ".join(f"{kind}={number}" for kind, number in bad.items() if number)
    failed = bad["failures"] + bad["errors"]
    # Failures come first, as the summary of all suites expects.
    print(f"FAILED ({told})" if failed else "OK" + (f" ({told})" if told else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
