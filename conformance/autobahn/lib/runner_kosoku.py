"""Runs Autobahn's case files on Python 3 (package kosoku) in one of two modes.

    runner_kosoku.py selfcheck CASES_JSON
    runner_kosoku.py fuzzingclient SPEC_JSON RESULTS_JSONL PATIENCE
    runner_kosoku.py fuzzingserver SPEC_JSON RESULTS_JSONL PATIENCE

The same command line, files and verdicts as runner_wstest.py, so that the rest
of the tool does not care which of the two it started. Differences that remain:
PATIENCE other than 1 is refused (the deadlines are compiled in), and in
fuzzingserver mode the verdicts are written at the end of the run.
"""

import asyncio
import importlib.metadata
import json
import os
import sys
import threading
import time

import kosoku
from kosoku._report import write_reports
from kosoku.cases import CASES
from kosoku._report_assets import CaseCategories


class Named:
    """A result under the agent's name that the caller chose."""

    def __init__(self, result, agent):
        self._result, self.agent = result, agent

    def __getattr__(self, name):
        return getattr(self._result, name)


class NotRun(Exception):
    """The peer could not be reached."""


def selfcheck(path):
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"cases": list(CASES), "categories": CaseCategories,
                   "runner": "kosoku", "kosoku": importlib.metadata.version("kosoku")},
                  f, sort_keys=True, indent=1)
    print("kosoku %s, Python %s, %d cases"
          % (importlib.metadata.version("kosoku"), sys.version.split()[0], len(CASES)))


def write_down(path, results):
    with open(path, "a", encoding="utf-8") as f:
        for r in results:
            f.write(json.dumps({
                "agent": r.agent, "id": r.case_id, "behavior": r.behavior.value,
                "behaviorClose": r.behavior_close.value, "duration": r.duration,
                "remoteCloseCode": r.remote_close_code}) + "\n")


async def collected(run):
    """A run's results, whether or not it calls itself a success."""
    try:
        return await run
    except kosoku.FailureError as failure:
        return failure.results


async def fuzzing_client(spec, results_path):
    # One call a case: each verdict is written down before the next case begins.
    server = spec["servers"][0]
    done = []
    for case_id in spec["cases"]:
        try:
            results = await collected(kosoku.run_fuzzingclient(server["url"], [case_id]))
        except (OSError, RuntimeError) as error:
            print("Connection to %s failed (%s)" % (server["url"], error))
            break
        results = [Named(r, server["agent"]) for r in results]
        write_down(results_path, results)
        done += results
    return done


async def fuzzing_server(spec, results_path):
    host, port = spec["url"].split("//")[1].split(":")
    async with kosoku.run_fuzzingserver(spec["cases"], host=host, port=int(port)) as server:
        print("LISTENING %s %d" % (server.address, server.port))
        results = await collected(server.get_result())
    write_down(results_path, results)
    return results


def end_with_parent():
    parent = os.getppid()

    def look():
        while os.getppid() == parent:
            time.sleep(2)
        os._exit(3)

    threading.Thread(target=look, daemon=True).start()


def main():
    mode = sys.argv[1]
    if mode == "selfcheck":
        return selfcheck(sys.argv[2])
    spec_path, results_path, patience = sys.argv[2:5]
    if float(patience) != 1:
        sys.exit("kosoku's deadlines cannot be changed: --patience needs AUTOBAHN_RUNNER=wstest")
    with open(spec_path, encoding="utf-8") as f:
        spec = json.load(f)
    if spec.get("url", spec.get("servers", [{}])[0].get("url", "")).startswith("wss:"):
        sys.exit("wss:// needs AUTOBAHN_RUNNER=wstest")
    end_with_parent()
    run = {"fuzzingclient": fuzzing_client, "fuzzingserver": fuzzing_server}[mode]
    results = asyncio.run(run(spec, results_path))
    if results:
        write_reports(results, spec["outdir"])


if __name__ == "__main__":
    main()
