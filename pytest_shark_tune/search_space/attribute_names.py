"""Names in configs that both their writer and their reader use."""

from __future__ import annotations

from pytest_shark_tune.dispatch.text_pipelines import text_attribute

__all__ = [
    "CPU_PIPELINES",
    "DECOMPOSITION",
    "DENORMALS",
    "FUSED",
    "GPU_OPTIONS",
    "LLVM_ATTRIBUTES",
    "PEELING",
    "SPIRV_OPTIONS",
    "SPIRV_PIPELINES",
    "WAVES_ATTRIBUTE",
    "cpu_pipeline",
    "denormals",
]

CPU_PIPELINES = "#iree_cpu.pipeline<"
SPIRV_PIPELINES = "#iree_gpu.spirv_pipeline<"
SPIRV_OPTIONS = ("pipeline_depth", "store_stage")
PEELING = "enable_loop_peeling"
DECOMPOSITION = "decomposition_config"
FUSED = "fused_configs"
"""The entry of a GPU's lowering config with those of the other ops of the dispatch, by the path from the root op."""
GPU_OPTIONS = "gpu_pipeline_options"
LLVM_ATTRIBUTES = "llvm_func_attrs"
WAVES_ATTRIBUTE = "amdgpu-waves-per-eu"
DENORMALS = "iree_codegen.denormal_fp_math_f32"


def denormals(*, flushed: bool) -> str:
    """Return the text of the attribute for the treatment of denormals. The bindings have no class for it."""
    return f'#iree_codegen.denormal_fp_math<"{"preserve-sign" if flushed else "none"}">'


def cpu_pipeline(name: str) -> str:
    """Return the attribute of a pipeline for CPUs, by its name."""
    return text_attribute(name) or f"{CPU_PIPELINES}{name}>"
