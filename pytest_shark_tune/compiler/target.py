"""The targets of compilation."""

from __future__ import annotations

import msgspec

from pytest_shark_tune.errors import InputError

__all__ = ["Target"]


_BACKENDS = {
    # backend: (flags before the architecture, flag of the architecture, default driver, example)
    "llvm-cpu": (
        ("--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu"),
        "--iree-llvmcpu-target-cpu",
        "local-task",
        "llvm-cpu or llvm-cpu:znver4",
    ),
    "cuda": (("--iree-hal-target-device=cuda",), "--iree-cuda-target", "cuda", "cuda:sm_89"),
    "hip": (("--iree-hal-target-device=hip",), "--iree-rocm-target", "hip", "hip:gfx942"),
    "vulkan": (("--iree-hal-target-device=vulkan",), "--iree-vulkan-target", "vulkan", "vulkan:rdna3"),
}
_ALIASES = {"cpu": "llvm-cpu", "rocm": "hip"}


class Target(msgspec.Struct, frozen=True):
    """A target: an IREE backend and an architecture."""

    backend: str
    architecture: str
    """The value of the backend's target flag."""

    @classmethod
    def parse(cls, text: str, *, partial: bool = False) -> Target:
        """Read ``llvm-cpu``, ``cuda:sm_89``, ``hip:gfx942`` or ``vulkan:rdna3``; ``cpu`` and ``rocm`` are other names.

        Args:
            text: The target.
            partial: Whether the architecture of a GPU may be missing. It is then empty.

        Raises:
            InputError: the backend is unknown, or a GPU's architecture is missing.
        """
        backend, colon, architecture = text.partition(":")
        backend = _ALIASES.get(backend, backend)
        if backend not in _BACKENDS:
            known = ", ".join(example for *_, example in _BACKENDS.values())
            raise InputError(f"unknown target {text!r}: give one of {known}")
        if not architecture:
            if partial and backend != "llvm-cpu" and not colon:
                return cls(backend, "")
            if backend != "llvm-cpu" or colon:
                raise InputError(f"target {text!r} names no architecture: give for example {_BACKENDS[backend][3]}")
            architecture = "host"
        return cls(backend, architecture)

    def __str__(self) -> str:
        """The form that ``parse`` reads, without the default architecture."""
        is_default = self.backend == "llvm-cpu" and self.architecture == "host"
        return self.backend if is_default else f"{self.backend}:{self.architecture}"

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags that make iree-compile produce code for this target."""
        flags, architecture_flag, _, _ = _BACKENDS[self.backend]
        return (*flags, f"{architecture_flag}={self.architecture}")

    @property
    def driver(self) -> str:
        """The runtime driver that runs code for this target."""
        return _BACKENDS[self.backend][2]

    @property
    def loads_specs(self) -> bool:
        """Whether iree-compile uses its flag ``--iree-codegen-tuning-spec-path`` on this target."""
        return self.backend in {"llvm-cpu", "hip"}

    @property
    def shares_processor(self) -> bool:
        """Whether the compiler runs on the processor that is measured."""
        return self.backend == "llvm-cpu"
