"""The identity of a CPU: two models have two, however little their kernels and hypervisors tell."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pytest

from pytest_shark_tune.compiler.compiler import describe_host
from pytest_shark_tune.device.identity import cpu_name, slug
from pytest_shark_tune.system.cpu import cpu_identity, is_model_name

N1 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs"
V1 = f"{N1} sm3 sm4 asimdfhm dit uscat ilrcpc flagm jscvt fcma sve rng i8mm bf16 svei8mm svebf16"
APPLE = f"{N1} jscvt fcma sha3 sha512 asimdfhm dit uscat ilrcpc flagm flagm2 frint"
ZEN3 = "fpu vme cx8 cmov sse sse2 ht hypervisor pni ssse3 fma sse4_1 sse4_2 avx f16c bmi1 avx2 bmi2 sha_ni vaes"
ZEN4 = f"{ZEN3} avx512f avx512dq avx512cd avx512bw avx512vl avx512_vnni avx512_bf16 gfni"


def arm(implementer: str, part: str, features: str, *, variant: str = "0x1", revision: str = "1") -> list[str]:
    return [
        f"Features\t: {features}",
        f"CPU implementer\t: {implementer}",
        "CPU architecture: 8",
        f"CPU variant\t: {variant}",
        f"CPU part\t: {part}",
        f"CPU revision\t: {revision}",
    ]


def x86(name: str, family: int, model: int, stepping: int, flags: str, vendor: str = "AuthenticAMD") -> list[str]:
    return [
        f"vendor_id\t: {vendor}",
        f"cpu family\t: {family}",
        f"model\t\t: {model}",
        f"model name\t: {name}",
        f"stepping\t: {stepping}",
        f"flags\t\t: {flags}",
    ]


def cpuinfo(*cores: Sequence[str], mhz: float = 2445.406, bogomips: float = 4890.81) -> str:
    blocks = [
        "\n".join([f"processor\t: {number}", *core, f"cpu MHz\t\t: {mhz + number}", f"BogoMIPS\t: {bogomips}"])
        for number, core in enumerate(cores)
    ]
    return "\n\n".join(blocks) + "\n\n"


GRAVITON2 = arm("0x41", "0xd0c", N1, variant="0x3")
GRAVITON3 = arm("0x41", "0xd40", V1)
LITTLE, BIG = arm("0x41", "0xd05", N1), arm("0x41", "0xd0b", N1, variant="0x4")

KINDS: dict[str, list[list[str]]] = {
    "graviton 2": [GRAVITON2] * 2,
    "graviton 3": [GRAVITON3] * 2,
    "graviton 2 of another revision": [arm("0x41", "0xd0c", N1, variant="0x3", revision="2")],
    "ampere one": [arm("0xc0", "0xac3", V1)],
    "apple m1": [arm("0x61", "0x022", APPLE), arm("0x61", "0x023", APPLE)],
    "apple m2": [arm("0x61", "0x032", f"{APPLE} i8mm bf16"), arm("0x61", "0x033", f"{APPLE} i8mm bf16")],
    "apple in a virtual machine": [arm("0x61", "0x000", APPLE)],
    "a part that is not known": [arm("0x51", "0x001", N1)],
    "another such part": [arm("0x51", "0x002", N1)],
    "big and little": [LITTLE, BIG],
    "little alone": [LITTLE],
    "masked zen 3": [x86("AMD EPYC", 25, 1, 1, ZEN3)],
    "masked zen 4": [x86("AMD EPYC", 25, 17, 1, ZEN4)],
    "masked zen 4 of another stepping": [x86("AMD EPYC", 25, 17, 2, ZEN4)],
    "zen 4 of which AVX-512 is hidden": [x86("AMD EPYC", 25, 17, 1, ZEN3)],
    "google's skylake": [x86("Intel(R) Xeon(R) CPU @ 2.00GHz", 6, 85, 3, ZEN4, "GenuineIntel")],
    "google's ice lake": [x86("Intel(R) Xeon(R) CPU @ 2.60GHz", 6, 106, 6, ZEN4, "GenuineIntel")],
    "qemu on intel": [x86("QEMU Virtual CPU version 2.5+", 15, 107, 1, ZEN3, "GenuineIntel")],
    "qemu on amd": [x86("QEMU Virtual CPU version 2.5+", 15, 107, 1, ZEN3)],
    "gvisor": [x86("unknown", 6, 106, 6, ZEN4, "GenuineIntel")],
    "another under gvisor": [x86("unknown", 25, 17, 1, ZEN4)],
    "a riscv": [["isa\t: rv64imafdc_v", "uarch\t: thead,c920", "mvendorid\t: 0x5b7"]],
    "another riscv": [["isa\t: rv64imafdcv", "uarch\t: spacemit,x60", "mvendorid\t: 0x710"]],
    "a power": [["cpu\t\t: POWER9 (architected), altivec supported"]],
    "another power": [["cpu\t\t: POWER10 (architected), altivec supported"]],
    "a true name": [x86("AMD EPYC 9R14", 25, 17, 1, ZEN4)],
    "another true name": [x86("AMD EPYC 9654 96-Core Processor", 25, 17, 1, ZEN4)],
}


def test_two_models_are_two_devices() -> None:
    for one, other in combinations(KINDS, 2):
        first, second = cpuinfo(*KINDS[one]), cpuinfo(*KINDS[other])
        assert cpu_identity(first) != cpu_identity(second), (one, other)
        assert slug(cpu_identity(first)) != slug(cpu_identity(second)), (one, other)
        assert describe_host(first) != describe_host(second), f"code for {one} is no code for {other}"


@pytest.mark.parametrize("kind", KINDS)
def test_one_model_is_one_device_whatever_clocks_and_order_are(kind: str) -> None:
    cores = KINDS[kind]
    identity = cpu_identity(cpuinfo(*cores))
    assert identity == cpu_identity(cpuinfo(*reversed(cores), mhz=1499.9, bogomips=50.0))
    assert identity == cpu_identity(cpuinfo(*cores, *cores, *cores))
    assert "\n" not in identity
    assert len(slug(identity)) < 150


def test_a_kernel_that_calls_its_mitigations_by_new_names_makes_no_other_device() -> None:
    newer = x86("AMD EPYC", 25, 17, 1, f"constant_tsc {ZEN4} ibrs_enhanced user_shstk")
    assert cpu_identity(cpuinfo(newer)) == cpu_identity(cpuinfo(*KINDS["masked zen 4"]))


@pytest.mark.parametrize(
    ("kind", "name", "file"),
    [
        ("a true name", "AMD EPYC 9R14", "amd-epyc-9r14"),
        ("another true name", "AMD EPYC 9654 96-Core Processor", "amd-epyc-9654"),
        ("graviton 2", "ARM Neoverse-N1 r3p1, ISA ", "arm-neoverse-n1-r3p1-isa-"),
        (
            "big and little",
            "ARM Cortex-A55 r1p1 + ARM Cortex-A76 r4p1, ISA ",
            "arm-cortex-a55-r1p1-arm-cortex-a76-r4p1-",
        ),
        ("a part that is not known", "Qualcomm part 0x001 r1p1, ISA ", "qualcomm-part-0x001-r1p1-isa-"),
        (
            "masked zen 4",
            "AMD EPYC, AuthenticAMD family 25 model 17 stepping 1, ISA ",
            "amd-epyc-authenticamd-family-25-",
        ),
        (
            "google's skylake",
            "Intel(R) Xeon(R) CPU, GenuineIntel family 6 ",
            "intel-xeon-genuineintel-family-6-model-85-",
        ),
    ],
)
def test_an_identity_reads_well_and_a_true_name_stays_as_it_was(kind: str, name: str, file: str) -> None:
    identity = cpu_identity(cpuinfo(*KINDS[kind]))
    assert identity.startswith(name)
    assert slug(identity).startswith(file)
    assert (identity == name) == ("true name" in kind)
    assert (slug(identity) == file) == ("true name" in kind)


def test_code_for_a_host_with_a_true_name_keeps_its_keys() -> None:
    lines = describe_host(cpuinfo(*KINDS["a true name"])).splitlines()
    assert lines == [f"flags\t\t: {ZEN4}", "model name\t: AMD EPYC 9R14"]


def test_where_nothing_is_told_the_architecture_is_the_name() -> None:
    assert cpu_identity("", "riscv64") == "riscv64"
    assert cpu_identity("processor\t: 0\nhart\t: 1\n", "riscv64") == "riscv64"
    assert cpu_identity(f"Features\t: {N1}\n", "aarch64").startswith("aarch64, ISA ")


@pytest.mark.parametrize(
    "name",
    [
        "AMD EPYC 7B12",
        "AMD EPYC 9V33X 96-Core Processor",
        "AMD Ryzen 9 7950X3D 16-Core Processor",
        "AMD Ryzen AI MAX+ 395 w/ Radeon 8060S",
        "AMD FX(tm)-8350 Eight-Core Processor",
        "AMD Custom APU 0405",
        "Intel(R) Xeon(R) Platinum 8488C",
        "Intel(R) Xeon(R) CPU E5-2697A v4 @ 2.60GHz",
        "Intel(R) N97",
        "Intel(R) Core(TM) Ultra 7 155H",
        "Intel(R) Core(TM) i7 CPU         920  @ 2.67GHz",
        "Intel(R) Core(TM) m3-7Y30 CPU @ 1.00GHz",
        "12th Gen Intel(R) Core(TM) i7-12700K",
        "Hygon C86 7185 32-core Processor",
        "Loongson-3A5000",
    ],
)
def test_a_model_has_a_number(name: str) -> None:
    assert is_model_name(name)
    assert cpu_identity(cpuinfo(x86(name, 6, 85, 7, ZEN4))) == name


@pytest.mark.parametrize(
    "name",
    [
        "AMD EPYC",
        "AMD EPYC 96-Core Processor",
        "AMD EPYC-Genoa Processor",
        "AMD EPYC-v4 Processor",
        "AMD EPYC Processor (with IBPB)",
        "AMD Opteron 240 (Gen 1 Class Opteron)",
        "AMD Opteron 63xx class CPU",
        "Intel Xeon Processor (Skylake, IBRS)",
        "Intel(R) Xeon(R) Processor @ 2.70GHz",
        "Intel(R) Xeon(R) CPU 2.20GHz",
        "Intel(R) Xeon(R) CPU E5-26xx v4",
        "Intel Celeron_4x0 (Conroe/Merom Class Core 2)",
        "Westmere E56xx/L56xx/X56xx (Nehalem-C)",
        "Genuine Intel(R) CPU 0000 @ 2.00GHz",
        "QEMU TCG CPU version 2.5+",
        "Common 32-bit KVM processor",
        "Virtual CPU 82d9ed4018dd",
        "VirtualApple @ 2.50GHz",
        "DO-Premium-AMD",
        "ARMv8 Processor rev 1 (v8l)",
        "x86_64",
        "unknown",
    ],
)
def test_a_mask_has_none(name: str) -> None:
    assert not is_model_name(name)


def test_this_machine_is_the_same_whenever_it_is_asked() -> None:
    names = {cpu_name() for _ in range(5)}
    assert len(names) == 1
    assert cpu_identity(Path("/proc/cpuinfo").read_text(encoding="utf-8"), "?") in names
