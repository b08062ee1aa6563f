"""Another compile step: passes of iree-opt run over each configured module before it is compiled."""

import pytest

PASSES = "builtin.module(hal.executable(hal.executable.variant(builtin.module(func.func(canonicalize,cse)))))"


@pytest.fixture
def artifact(tune_dispatch, tune_session):
    """The stage that compiles. The default, finalists, the merged spec and guarded entries take the step, too."""

    def clean_up(text):
        return tune_session.compiler.opt(text, f"--pass-pipeline={PASSES}")

    return tune_dispatch.build(clean_up, key=PASSES)
