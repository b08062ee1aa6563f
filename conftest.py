"""Pytest's own fixture for tests of plugins; what it holds for the whole checkout belongs here, in the root."""

import signal

pytest_plugins = ["pytester"]

# Whoever is started in the background of a shell ignores Ctrl-C, and so would all that the tests start to interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
