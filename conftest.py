"""Pytest's own fixture for tests of plugins; what it holds for the whole checkout belongs here, in the root."""

pytest_plugins = ["pytester"]
