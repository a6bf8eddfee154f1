"""What run-server-tests and run-client-tests share. Standard library only."""

import base64
import fnmatch
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
TOOL = os.path.dirname(HERE)
MARKER = ".autobahn-report"

# What a run can come to.
PASSED, NOT_CONFORMANT, COULD_NOT_RUN = 0, 1, 2

GOOD = ("OK", "INFORMATIONAL")

# Named selections. 12.* and 13.* each hold the same 18 message sizes over and
# over; the big ones are nearly all of a full run's time.
PRESETS = {
    "all": ["*"],
    "core": ["*", "!9.*", "!12.*", "!13.*"],
    "quick": ["*", "!12.*", "!13.*", "12.*.[1-5]", "12.*.11",
              "13.*.[1-5]", "13.*.11"],
}

# What kosoku stumbles at: messages that a peer may well send uncompressed.
KOSOKU_STUMBLES = ["!12.[25].*", "!12.*.[12]", "!13.*.[12]", "!13.[2567].3"]

CASES_HELP = """\
CASES is a comma-separated list of case numbers, patterns (12.*, 12.*.[1-5])
and presets; a leading ! takes cases out, and later items win. Presets:
  all    every case (the default)
  core   without 9.* (limits), 12.* and 13.* (permessage-deflate)
  quick  core, 9.*, and the small messages of 12.* and 13.*
  everyday  quick, as far as the runner that is installed can run it
"""


class CouldNotRun(Exception):
    """The run says nothing about the program under test."""


def say(text):
    print("autobahn: " + text, file=sys.stderr, flush=True)


# --- the command line -------------------------------------------------------

def add_common_options(parser):
    parser.add_argument("--strict", action="store_true",
                        help="NON-STRICT cases fail too")
    parser.add_argument("--allow-unimplemented", action="store_true",
                        help="UNIMPLEMENTED cases (no permessage-deflate) do not fail")
    parser.add_argument("--exclude", metavar="CASES", default="",
                        help="cases to leave out, in the form of CASES")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=3600,
                        help="end the whole run after this long (default: 3600)")
    parser.add_argument("--patience", metavar="FACTOR", type=float, default=1,
                        help="multiply the suite's short deadlines (0.5 to 10 s), "
                             "for a slow or busy machine (default: 1)")
    parser.add_argument("--quiet", action="store_true",
                        help="no progress lines on standard error")
    parser.add_argument("--fails-only", action="store_true",
                        help="list only the cases that make the run fail")


def ensure_setup():
    """Sets the suite up if it is not: (its Python, cases.json's content).

    `runner` in the latter says which of the two launchers in this folder it takes.
    """
    done = subprocess.run([os.path.join(TOOL, "setup"), "--quiet", "--print"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    if done.returncode != 0:
        raise CouldNotRun("the suite could not be installed")
    folder = os.fsdecode(done.stdout).rstrip("\n")
    with open(os.path.join(folder, "cases.json"), encoding="utf-8") as f:
        return os.path.join(folder, "venv", "bin", "python"), json.load(f)


def case_key(case_id):
    return [int(part) for part in case_id.split(".")]


def select_cases(text, exclude, suite):
    """The case numbers that CASES and --exclude name, in order."""
    chosen = set()
    known = suite["cases"]
    stumbles = KOSOKU_STUMBLES if suite["runner"] == "kosoku" else []
    presets = dict(PRESETS, everyday=PRESETS["quick"] + stumbles)

    def items(text):
        for item in re.split(r"[,\s]+", text.strip()):
            if item:
                yield from presets.get(item, [item])

    def matching(pattern):
        found = [c for c in known if fnmatch.fnmatchcase(c, pattern)]
        if not found:
            raise CouldNotRun("no case is called %r (see --help)" % pattern)
        return found

    for number, item in enumerate(items(text)):
        if item.startswith("!"):
            if number == 0:
                chosen.update(known)
            chosen.difference_update(matching(item[1:]))
        else:
            chosen.update(matching(item))
    for item in items(exclude):
        if item.startswith("!"):
            raise CouldNotRun("--exclude takes no item with a leading '!'")
        chosen.difference_update(matching(item))
    if not chosen:
        raise CouldNotRun("that selection holds no case")
    return sorted(chosen, key=case_key)


def prepare_outdir(path):
    """An empty folder for the report; never empties a folder that is not one."""
    path = os.path.abspath(path)
    if os.path.isdir(path) and os.listdir(path):
        if not os.path.exists(os.path.join(path, MARKER)):
            raise CouldNotRun("%s is not empty and holds no earlier report: "
                              "name another folder" % path)
        for name in os.listdir(path):
            full = os.path.join(path, name)
            if os.path.isdir(full) and not os.path.islink(full):
                shutil.rmtree(full)
            else:
                os.remove(full)
    try:
        os.makedirs(path, exist_ok=True)
        with open(os.path.join(path, MARKER), "w"):
            pass
    except OSError as error:
        raise CouldNotRun("%s: %s" % (path, error.strerror))
    return path


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1, sort_keys=True)
        f.write("\n")


def parse_loopback_url(url):
    """(host, port) of a ws:// or wss:// URL on this machine."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise CouldNotRun("%s: %s" % (url, error))
    if parts.scheme not in ("ws", "wss") or not host:
        raise CouldNotRun("%s: not a ws:// or wss:// URL" % url)
    try:
        loopback = host == "localhost" or (
            ipaddress.IPv4Address(host) in ipaddress.IPv4Network("127.0.0.0/8"))
    except ValueError:
        loopback = False
    if not loopback:
        raise CouldNotRun("%s: only localhost and 127.0.0.0/8 are tested "
                          "(the suite speaks IPv4)" % url)
    return host, port or (443 if parts.scheme == "wss" else 80)


# --- processes --------------------------------------------------------------

class Child:
    """A process in its own group, which is ended with all it started."""

    def __init__(self, command, **options):
        self.process = subprocess.Popen(command, start_new_session=True, **options)

    def poll(self):
        return self.process.poll()

    def stop(self, grace=5):
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
            except (ProcessLookupError, PermissionError):
                break
            try:
                self.process.wait(grace)
            except subprocess.TimeoutExpired:
                continue
            if number == signal.SIGTERM:
                time.sleep(0.05)
        self.process.wait()


class Suite(Child):
    """The suite in one of its fuzzing modes, reporting into a folder."""

    def __init__(self, python, runner, mode, spec, outdir, patience):
        spec = dict(spec, outdir=outdir)
        if patience != 1:
            # The defaults are 5 and 1 s.
            spec["options"] = {"openHandshakeTimeout": 5 * patience,
                               "closeHandshakeTimeout": 1 * patience}
            if mode == "fuzzingclient":
                spec["options"]["serverConnectionDropTimeout"] = 1 * patience
        # kosoku's server reports once, at the end, and ends with that.
        self.ends_by_itself = runner == "kosoku"
        self.results = os.path.join(outdir, "results.jsonl")
        self.log = os.path.join(outdir, "suite.log")
        spec_path = os.path.join(outdir, "spec.json")
        write_json(spec_path, spec)
        open(self.results, "w").close()
        # The caller's Python settings are for another Python.
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        env["PYTHONIOENCODING"] = "utf-8"
        with open(self.log, "w") as log:
            super().__init__(
                [python, "-B", "-u", os.path.join(HERE, "runner_%s.py" % runner),
                 mode, spec_path, self.results, repr(patience)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                cwd=outdir, env=env)

    def has_reported(self):
        """Whether it wrote its report and ended, as it should."""
        return self.ends_by_itself and self.poll() == 0

    def wait_for_report(self, seconds=30):
        if self.ends_by_itself:
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                pass  # the report is missing then, which is noticed

    def log_text(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def log_tail(self, lines=15):
        return "\n".join(self.log_text().splitlines()[-lines:])

    def results_so_far(self):
        found = []
        with open(self.results, encoding="utf-8") as f:
            for line in f:
                try:
                    found.append(json.loads(line))
                except ValueError:
                    pass
        return found


def become_interruptible():
    """SIGTERM and SIGHUP unwind like Ctrl-C, so that children are ended."""
    def leave(number, frame):
        raise SystemExit(128 + number)
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)


class Progress:
    """A line on standard error now and then while cases run."""

    def __init__(self, child, total, quiet):
        self.child, self.total, self.quiet = child, total, quiet
        self.start = self.last = time.monotonic()

    def tick(self):
        now = time.monotonic()
        if self.quiet or now - self.last < 20:
            return
        self.last = now
        results = self.child.results_so_far()
        bad = sum(1 for r in results if verdict(r) in ("failed", "unimplemented"))
        say("%d of %d cases after %d s, %d failed, last was %s"
            % (len(results), self.total, now - self.start, bad,
               results[-1]["id"] if results else "none"))


def request_reports(port, context=None, timeout=120):
    """Asks a fuzzing server to write its reports, as a WebSocket client would."""
    key = base64.b64encode(os.urandom(16)).decode("ascii")
    request = ("GET /updateReports?agent=report HTTP/1.1\r\n"
               "Host: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
               "Connection: Upgrade\r\nSec-WebSocket-Key: %s\r\n"
               "Sec-WebSocket-Version: 13\r\n\r\n" % (port, key))
    with socket.create_connection(("127.0.0.1", port), timeout) as raw:
        stream = context.wrap_socket(raw) if context else raw
        stream.settimeout(timeout)
        stream.sendall(request.encode("ascii"))
        while True:
            # The close frame comes once the reports are written; the suite
            # then drops the connection.
            try:
                if not stream.recv(65536):
                    return
            except ConnectionError:
                return


# --- verdicts ---------------------------------------------------------------

def verdict(case):
    """One word for a case: ok, info, non-strict, unimplemented or failed."""
    both = (case["behavior"], case["behaviorClose"])
    rest = [b for b in both if b not in GOOD]
    if not rest:
        return "ok" if both == ("OK", "OK") else "info"
    if all(b == "NON-STRICT" for b in rest):
        return "non-strict"
    if rest == ["UNIMPLEMENTED"]:
        return "unimplemented"
    return "failed"


def duration_ms(case):
    """How long a case took; the suite has no start for one that never opened."""
    return case["duration"] if case["duration"] < 10 ** 9 else 0


def load_index(outdir):
    """index.json: agent -> case -> verdict; None if there is none to read."""
    try:
        with open(os.path.join(outdir, "index.json"), encoding="utf-8") as f:
            return json.load(f)
    except (OSError, ValueError):
        return None


def index_from_results(results):
    """What index.json would have said, from the verdicts written as they came."""
    index = {}
    for r in results:
        index.setdefault(str(r["agent"]), {})[r["id"]] = r
    return index


class Summary:
    COLUMNS = ("ok", "info", "non-strict", "unimplemented", "failed", "missing")

    def __init__(self, outdir, agent, cases, expected, categories, options):
        self.outdir, self.agent, self.cases = outdir, agent, cases
        self.expected, self.categories = expected, categories
        self.fails_only = options.fails_only
        self.bad = {"failed", "missing"}
        if options.strict:
            self.bad.add("non-strict")
        if not options.allow_unimplemented:
            self.bad.add("unimplemented")
        self.verdicts = {c: verdict(cases[c]) if c in cases else "missing"
                         for c in expected}

    def count(self, *verdicts):
        return sum(1 for v in self.verdicts.values() if v in verdicts)

    @property
    def failed(self):
        return self.count(*self.bad)

    def sections(self):
        table = {}
        for case_id in self.expected:
            row = table.setdefault(case_id.split(".")[0],
                                   dict.fromkeys(self.COLUMNS, 0))
            row[self.verdicts[case_id]] += 1
            row["cases"] = row.get("cases", 0) + 1
            row.setdefault("ms", 0)
            if case_id in self.cases:
                row["ms"] += duration_ms(self.cases[case_id])
        return table

    def case_line(self, case_id):
        word = self.verdicts[case_id]
        mark = "FAIL" if word in self.bad else "note"
        if word == "missing":
            return "%s  %-8s no result: the case was not run to its end" % (mark, case_id)
        case = self.cases[case_id]
        line = "%s  %-8s behavior=%s close=%s remote-code=%s %d ms" % (
            mark, case_id, case["behavior"], case["behaviorClose"],
            case["remoteCloseCode"], duration_ms(case))
        detail = os.path.join(self.outdir, case.get("reportfile", ""))
        if mark == "FAIL" and os.path.isfile(detail):
            try:
                with open(detail, encoding="utf-8") as f:
                    report = json.load(f)
                quiet = GOOD + ("NON-STRICT",)
                said = [report[text].rstrip(". ") for key, text in
                        (("behavior", "result"), ("behaviorClose", "resultClose"))
                        if case[key] not in quiet]
                said.append("see " + case["reportfile"][:-len("json")] + "html")
                line += "  (%s)" % "; ".join(said)
            except (OSError, ValueError, KeyError):
                pass
        return line

    def print(self):
        heads = ("ok", "info", "non-str", "unimpl", "failed", "missing")
        form = "%-48s %6s %6s %6s %8s %7s %7s %8s %9s"
        print("agent: %s" % self.agent)
        print(form % (("section", "cases") + heads + ("time",)))
        total = dict.fromkeys(self.COLUMNS + ("cases", "ms"), 0)
        for number, row in self.sections().items():
            for column in row:
                total[column] += row[column]
            name = "%-3s %s" % (number, self.categories.get(number, ""))
            print(form % self.cells(name[:48], row))
        print(form % self.cells("all", total))
        listed = [c for c in self.expected if self.verdicts[c] != "ok"
                  and (not self.fails_only or self.verdicts[c] in self.bad)]
        if listed:
            print()
        # What fails comes last, where it is looked for first.
        for case_id in sorted(listed, key=lambda c: self.verdicts[c] in self.bad):
            print(self.case_line(case_id))
        sys.stdout.flush()

    def cells(self, name, row):
        return ((name, row["cases"]) + tuple(row[c] for c in self.COLUMNS)
                + ("%.1f s" % (row["ms"] / 1000.0),))

    def as_json(self):
        return {
            "agent": self.agent,
            "failed": self.failed,
            "sections": self.sections(),
            "totals": {c: self.count(c) for c in self.COLUMNS},
            "not_ok": {c: {"verdict": v,
                           "behavior": self.cases.get(c, {}).get("behavior"),
                           "behaviorClose": self.cases.get(c, {}).get("behaviorClose")}
                       for c, v in self.verdicts.items() if v != "ok"},
        }


def conclude(outdir, index, expected, categories, options, trouble, seconds):
    """Prints every agent's summary and returns the exit status."""
    summaries = [Summary(outdir, agent, index[agent], expected, categories, options)
                 for agent in sorted(index)]
    for summary in summaries:
        summary.print()
    failed = sum(s.failed for s in summaries)
    passed = sum(len(s.expected) for s in summaries) - failed
    write_json(os.path.join(outdir, "summary.json"),
               {"agents": [s.as_json() for s in summaries], "trouble": trouble,
                "seconds": round(seconds, 1), "cases": len(expected),
                "strict": options.strict,
                "allow_unimplemented": options.allow_unimplemented})
    print()
    for text in trouble:
        print("FAIL  " + text)
    page = os.path.join(outdir, "index.html")
    print("report: %s (%.0f s)" % (page if os.path.isfile(page) else outdir, seconds))
    print("autobahn: %d passed, %d failed" % (passed, failed + len(trouble)), flush=True)
    return NOT_CONFORMANT if failed or trouble else PASSED


def run_main(main):
    become_interruptible()
    try:
        status = main()
    except CouldNotRun as error:
        print("autobahn: error: %s" % error, file=sys.stderr)
        status = COULD_NOT_RUN
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)
