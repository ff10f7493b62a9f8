"""Signals: held back while a loop asks for them, and back to what they were after it."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from nnlab.runs import signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_deferred_signal_is_an_answer(number):
    before = signal.getsignal(number)
    with signals.deferred() as stop:
        assert stop() is None
        os.kill(os.getpid(), number)
        assert stop() is number
        assert signal.getsignal(number) == before  # a second one takes its usual effect
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("within", [signals.deferred, signals.immediate])
def test_handlers_are_back_when_no_signal_came(within):
    def handlers():
        return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    before = handlers()
    with within():
        assert handlers() != before
    assert handlers() == before


def test_a_hangup_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.deferred() as stop, signals.immediate():
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop() is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_another_thread_nothing_is_held_back():
    seen, before = [], signal.getsignal(signal.SIGTERM)

    def work():
        with signals.deferred() as stop, signals.immediate():
            seen.append((stop(), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(None, before)]


def test_an_immediate_signal_ends_the_process_within_a_call():
    program = (
        "import runpy, sys, threading\nlock = threading.Lock()\n"
        "immediate = runpy.run_path(sys.argv[1])['immediate']\n"
        "with immediate(), lock:\n    print('ready', flush=True)\n    lock.acquire()"
    )
    command = [sys.executable, "-c", program, signals.__file__]  # needs nothing else of nnlab
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == -signal.SIGTERM
