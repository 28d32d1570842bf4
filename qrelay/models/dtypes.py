"""Which floating-point arithmetic a device computes in."""

from __future__ import annotations


def native_dtype(device: str) -> str:
    """ "bfloat16" where the device computes in it (AVX-512 BF16, AMX; CUDA from capability 8 on), else "float32"."""
    import torch

    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.get_device_capability(device)[0] >= 8 else "float32"
    able = torch.cpu.get_capabilities()
    return "bfloat16" if any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "amx_tile")) else "float32"
