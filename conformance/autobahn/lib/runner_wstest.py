# -*- coding: utf-8 -*-
"""Runs the Autobahn suite (Python 2.7) in one of its fuzzing modes.

    runner_wstest.py selfcheck CASES_JSON
    runner_wstest.py fuzzingclient SPEC_JSON RESULTS_JSONL PATIENCE
    runner_wstest.py fuzzingserver SPEC_JSON RESULTS_JSONL PATIENCE

What it adds to calling `wstest` itself:
  * the fuzzing server listens on 127.0.0.1 only (wstest listens everywhere);
  * each case's verdict is written down as soon as it is known, so that a run
    that is cut short still says what it found;
  * errors inside the suite are printed (wstest swallows them);
  * it ends when the process that started it is gone;
  * PATIENCE multiplies the short deadlines, for a slow or busy machine.
"""
from __future__ import print_function

import io
import json
import os
import sys

# The suite chooses its reactor when this is imported: keep it first.
from autobahntestsuite import wstest, fuzzing
from autobahntestsuite.case import Cases, CaseBasename, CaseCategories, \
    CaseSetname, CaseSubCategories
from autobahntestsuite.caseset import CaseSet
import autobahn
import autobahntestsuite
import twisted
from twisted.internet import reactor, task
from twisted.python import log


def all_cases():
    cases = CaseSet(CaseSetname, CaseBasename, Cases, CaseCategories,
                    CaseSubCategories)
    return [cases.caseClasstoId(c) for c in Cases]


def selfcheck(path):
    import wsaccel.utf8validator  # noqa: F401  without it the suite crawls
    import wsaccel.xormask  # noqa: F401
    from autobahn.websocket import compress
    assert 'permessage-deflate' in compress.PERMESSAGE_COMPRESSION_EXTENSION
    ids = all_cases()
    text = json.dumps({'cases': ids, 'categories': CaseCategories,
                       'runner': 'wstest',
                       'testsuite': autobahntestsuite.version,
                       'autobahn': autobahn.version}, sort_keys=True, indent=1)
    with io.open(path, 'w', encoding='utf-8') as f:
        f.write(text.decode('utf-8'))
    print('autobahntestsuite %s, autobahn %s, Twisted %s, Python %s, %d cases'
          % (autobahntestsuite.version, autobahn.version, twisted.__version__,
             sys.version.split()[0], len(ids)))


def listen_on_loopback():
    original = fuzzing.listenWS

    def listen(factory, context_factory=None):
        port = original(factory, context_factory, interface='127.0.0.1')
        print('LISTENING %s %d' % (port.getHost().host, port.getHost().port))
        return port

    fuzzing.listenWS = listen


def write_down_results(path):
    out = open(path, 'a')
    original = fuzzing.FuzzingFactory.logCase.__func__

    def log_case(self, result):
        original(self, result)
        keys = ('agent', 'id', 'behavior', 'behaviorClose', 'duration',
                'remoteCloseCode')
        out.write(json.dumps(dict((k, result[k]) for k in keys)) + '\n')
        out.flush()

    fuzzing.FuzzingFactory.logCase = log_case


def be_patient(factor):
    if factor == 1:
        return
    original = fuzzing.FuzzingProtocol.killAfter.__func__
    fuzzing.FuzzingProtocol.killAfter = \
        lambda self, delay: original(self, delay * factor)


def print_errors():
    def observe(event):
        if event.get('isError'):
            print('ERROR IN THE SUITE: %s'
                  % (log.textFromEventDict(event) or '').strip())

    log.addObserver(observe)


def end_with_parent():
    parent = os.getppid()

    def look():
        if os.getppid() != parent:
            os._exit(3)

    task.LoopingCall(look).start(2)


def main():
    mode = sys.argv[1]
    if mode == 'selfcheck':
        return selfcheck(sys.argv[2])
    spec_path, results_path, patience = sys.argv[2:5]
    with open(spec_path) as f:
        spec = json.load(f)
    listen_on_loopback()
    write_down_results(results_path)
    be_patient(float(patience))
    print_errors()
    end_with_parent()
    wstest.start({'mode': mode, 'spec': spec_path, 'webport': 0,
                  'wsuri': None, 'debug': False}, spec)


if __name__ == '__main__':
    main()
