"""CPU identity: a name that is different for every CPU model, from the text of ``/proc/cpuinfo``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping

__all__ = ["cpu_identity", "is_model_name"]

_NAME = "model name"
_VENDORS = {
    "0x41": "ARM",
    "0x42": "Broadcom",
    "0x43": "Cavium",
    "0x46": "Fujitsu",
    "0x48": "HiSilicon",
    "0x4e": "NVIDIA",
    "0x51": "Qualcomm",
    "0x61": "Apple",
    "0x6d": "Microsoft",
    "0xc0": "Ampere",
}
_PARTS = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd44"): "Cortex-X1",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4f"): "Neoverse-V2",
    ("0x41", "0xd84"): "Neoverse-V3",
    ("0x61", "0x022"): "M1-Icestorm",
    ("0x61", "0x023"): "M1-Firestorm",
    ("0x61", "0x032"): "M2-Blizzard",
    ("0x61", "0x033"): "M2-Avalanche",
    ("0xc0", "0xac3"): "Ampere-1",
    ("0xc0", "0xac4"): "Ampere-1a",
}
"""The names of common parts, from Linux's ``cputype.h``. Other parts go by their number."""
_X86 = ("vendor_id", "cpu family", "model", "stepping")
_ARM = ("cpu implementer", "cpu part", "cpu variant", "cpu revision")
_OTHERS = ("cpu", "machine", "uarch", "mvendorid", "marchid", "mimpid")
"""The kernel's fields about a processor on POWER, s390 and RISC-V."""
_FEATURES = ("flags", "features", "isa")
_X86_ISA = re.compile(
    r"(mmx|3dnow|sse|ssse|pni|avx|fma|f16c|bmi|abm|popcnt|aes|vaes|sha|pclmul|vpclmul|gfni|amx|adx|movbe|movdir|xop|tbm"
    r"|cmov|cx16|cx8|lm$|sm3|sm4|rdrand|rdseed|prefetch|clmul|clflushopt|clwb|cldemote|serialize|erms|fsrm|lahf|rtm|hle)"
)
"""The instruction sets among the flags of x86. Other flags are about the kernel and its mitigations, and change."""
_CLOCK = re.compile(r"\b\d+(\.\d+)?\s*[GM]Hz\b", re.IGNORECASE)
_CORES = re.compile(r"\b\d+-cores?\b.*", re.IGNORECASE)
_MASK = re.compile(r"(?i:\b(qemu|kvm|virtual\w*|unknown|class|rev)\b)|\dx")
"""Words of hypervisors and old ARM kernels. ``E5-26xx`` stands for a whole series."""
_NUMBER = re.compile(r"[A-Za-z]-?\d\d|(\d\D*){3}")
_ARCHITECTURE = re.compile(r"(x86|[a-z]+64\b|i\d86)", re.IGNORECASE)


def cpu_identity(cpuinfo: str, fallback: str = "") -> str:
    """Name the CPU of a machine.

    The kernel's name of the model is used alone. If there is none (on ARM), or a hypervisor masks it ("AMD EPYC"),
    vendor, family, model and stepping (on ARM implementer, part, variant and revision) follow, and a hash of the
    instruction sets. All cores together make one name, which does not depend on their order, number or clocks.

    Args:
        cpuinfo: The text of ``/proc/cpuinfo``.
        fallback: The beginning of the name if the text names no model at all.
    """
    cores = list(_cores(cpuinfo))
    names = sorted({name for core in cores if (name := core.get(_NAME, ""))})
    if names and all(map(is_model_name, names)):
        return " + ".join(names)
    kinds = sorted({kind for core in cores if (kind := _core_kind(core))})
    features = sorted({feature for core in cores for feature in _features(core)})
    parts = [" + ".join(dict.fromkeys(map(_short_model, names))), " + ".join(kinds)]
    if not any(parts):
        parts.append(fallback)
    if features:
        parts.append(f"ISA {hashlib.sha256(' '.join(features).encode()).hexdigest()[:8]}")
    return ", ".join(filter(None, parts))


def is_model_name(name: str) -> bool:
    """Whether the kernel's name is that of one CPU model. Models have numbers, masks have none."""
    if _MASK.search(name):
        return False
    plain = _CLOCK.sub(" ", re.sub(r"\([^)]*\)", " ", _short_model(name)))
    numbered = (word for word in plain.split() if _NUMBER.search(word) and not _ARCHITECTURE.match(word))
    return any(set(re.findall(r"\d", word)) != {"0"} for word in numbered)  # Engineering samples are "0000".


def _short_model(name: str) -> str:
    """Remove the clock rate and the number of cores from a name."""
    return _CORES.sub("", name.partition("@")[0]).strip()


def _cores(cpuinfo: str) -> Iterator[Mapping[str, str]]:
    """The fields of the processors. Names are in lower case, since architectures spell them differently."""
    for block in re.split(r"\n\s*\n", cpuinfo):
        fields: dict[str, str] = {}
        for line in block.splitlines():
            field, colon, value = line.partition(":")
            if colon and value.strip():
                fields.setdefault(field.strip().lower(), value.strip())
        yield fields


def _core_kind(core: Mapping[str, str]) -> str:
    """The vendor and model of a core; empty if the kernel gives none."""
    if "cpu implementer" in core:
        implementer, part, variant, revision = (core.get(name, "").lower() for name in _ARM)
        vendor = _VENDORS.get(implementer, f"implementer {implementer}")
        model = _PARTS.get((implementer, part), f"part {part}")
        return f"{vendor} {model} r{_number(variant)}p{_number(revision)}"
    vendor, family, model, stepping = (core.get(name, "") for name in _X86)
    if family:
        return f"{vendor} family {family} model {model} stepping {stepping}".strip()
    return " ".join(f"{name} {core[name]}" for name in _OTHERS if name in core)


def _number(text: str) -> str:
    """Write ``0x3`` and ``3`` as ``3``."""
    return str(int(text, 0)) if re.fullmatch(r"0x[0-9a-f]+|\d+", text) else text


def _features(core: Mapping[str, str]) -> Iterable[str]:
    for name in _FEATURES:
        words = core.get(name, "").split()
        yield from (word for word in words if name != "flags" or _X86_ISA.match(word))
