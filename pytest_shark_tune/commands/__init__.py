"""The commands of ``shark-tune``. Those that need no compiler run without it, and the others name it."""

from pytest_shark_tune.ops.bindings import stand_in

stand_in()
