"""Outliving the command: each leaves processes that hold on, and says when they are there."""

import os
import signal
import threading
import time

from tests.escapes.inside import FACTS, libc, say, wait_to_be_looked_at

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE = 1, 36, 4


def _linger() -> None:
    """What a survivor does, for a bounded time: it keeps its arguments, which hold the token, so that it is found."""
    _reading, writing = FACTS["pipe"]
    os.write(writing, b"x")
    end = time.monotonic() + FACTS["linger_s"]
    while time.monotonic() < end:
        time.sleep(0.2)
    os._exit(0)


def _leave(*, stay: bool, many: int = 1) -> None:
    reading, writing = FACTS["pipe"]
    os.close(writing)  # so that the end of one that could not begin is heard too
    for _ in range(many):
        os.read(reading, 1)
    if stay:
        wait_to_be_looked_at()


def _start() -> None:
    FACTS["pipe"] = os.pipe()


def new_session() -> None:
    _start()
    if os.fork() == 0:
        os.setsid()
        _linger()
    _leave(stay=False)


def new_session_while_running() -> None:
    _start()
    if os.fork() == 0:
        os.setsid()
        _linger()
    _leave(stay=True)


def double_fork() -> None:
    _start()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.chdir("/")
            for number in (0, 1, 2):
                os.dup2(os.open(os.devnull, os.O_RDWR), number)
            _linger()
        os._exit(0)
    _leave(stay=False)


def double_fork_while_running() -> None:
    _start()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            _linger()
        os._exit(0)
    _leave(stay=True)


def ignoring_signals() -> None:
    _start()
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
        signal.signal(number, signal.SIG_IGN)
    if os.fork() == 0:
        _linger()
    _leave(stay=True)


def blocking_signals() -> None:
    _start()
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    if os.fork() == 0:
        os.setpgid(0, 0)
        _linger()
    _leave(stay=True)


def stopping_itself() -> None:
    _start()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.write(FACTS["pipe"][1], b"x")
        os.kill(os.getpid(), signal.SIGSTOP)
        _linger()
    _leave(stay=True)


def stopping_everything() -> None:
    _start()
    if os.fork() == 0:
        os.setpgid(0, 0)
        os.write(FACTS["pipe"][1], b"x")
        os.kill(os.getpid(), signal.SIGSTOP)
        _linger()
    _leave(stay=False)
    say("READY")
    os.kill(os.getpid(), signal.SIGSTOP)


def no_death_signal() -> None:
    _start()
    libc.prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)
    if os.fork() == 0:
        libc.prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)
        libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
        os.setsid()
        _linger()
    _leave(stay=True)


def adopting() -> None:
    _start()
    if os.fork() == 0:
        os.setsid()
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        if os.fork() == 0:
            if os.fork() == 0:
                _linger()
            os._exit(0)
        time.sleep(FACTS["linger_s"])
        os._exit(0)
    _leave(stay=True)


def forking_in_a_race() -> None:
    # Every process forks and ends at once, so that who is listed is gone and who is there was not listed.
    _start()
    end = time.monotonic() + FACTS["linger_s"]
    for _ in range(6):
        if os.fork() == 0:
            os.setsid()
            os.write(FACTS["pipe"][1], b"x")
            while time.monotonic() < end:
                if os.fork():
                    os._exit(0)
            os._exit(0)
    _leave(stay=True, many=6)


def holding_the_output() -> None:
    _start()
    if os.fork() == 0:
        os.setsid()
        say("still here")
        _linger()
    _leave(stay=False)


def first_thread_gone() -> None:
    _start()
    if os.fork() == 0:
        os.setsid()
        threading.Thread(target=_linger).start()
        libc.pthread_exit(None)
    _leave(stay=True)


def silent_clone() -> None:
    # A child that tells nobody of its end.
    _start()
    number = 56 if os.uname().machine == "x86_64" else 220
    if libc.syscall(number, 0, 0, 0, 0, 0) == 0:
        os.setsid()
        _linger()
    _leave(stay=True)


def renamed() -> None:
    _start()
    if os.fork() == 0:
        os.setsid()
        with open("/proc/self/comm", "w") as file:
            file.write("kthreadd")
        libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
        _linger()
    _leave(stay=False)
