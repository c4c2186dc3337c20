"""A TensorRT engine as `predict(images)`: one execution context, pinned host buffers, one CUDA stream.

Imported only where an engine is run: it needs TensorRT, a GPU and, for buffers and stream, PyTorch.
"""

from __future__ import annotations

from pathlib import Path

import tensorrt as trt  # type: ignore[import-not-found, unused-ignore]
import torch

from contract.spec import IMAGE, OUTPUTS, Images, Predictions
from convert.errors import ModelFileError, RuntimeUnavailableError


class EngineRunner:
    """uint8 [n, 128, 128, 3] -> Predictions of n, up to the maximum of the engine's profile. Not thread-safe."""

    def __init__(self, plan: Path) -> None:
        """Raises RuntimeUnavailableError without a GPU, ModelFileError for a plan that TensorRT refuses."""
        if not torch.cuda.is_available():
            raise RuntimeUnavailableError("runtime 'tensorrt' needs an NVIDIA GPU, and none is visible")
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._runtime.engine_host_code_allowed = True  # a version-compatible plan carries its own runtime
        engine: trt.ICudaEngine | None = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if engine is None:
            raise ModelFileError(
                f"TensorRT {trt.__version__} on {torch.cuda.get_device_name()} refuses {plan}: it was built by another "
                "version or for another GPU; build it again with make engine"
            )
        self.max_batch_size: int = engine.get_tensor_profile_shape(IMAGE.name, 0)[2][0]
        self._context = engine.create_execution_context()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._host = {t.name: _pinned(self.max_batch_size, *t.dims) for t in OUTPUTS}
        self._host[IMAGE.name] = _pinned(self.max_batch_size, *IMAGE.dims, dtype=torch.uint8)
        self._device = {name: torch.empty_like(buffer, device="cuda") for name, buffer in self._host.items()}
        for name, buffer in self._device.items():
            self._context.set_tensor_address(name, buffer.data_ptr())

    def __call__(self, images: Images) -> Predictions:
        n = len(images)
        if n > self.max_batch_size:
            raise ValueError(f"a batch of {n} is larger than the engine's profile allows ({self.max_batch_size})")
        self._host[IMAGE.name][:n].copy_(torch.from_numpy(images))
        self._context.set_input_shape(IMAGE.name, images.shape)
        with torch.cuda.stream(self._stream):
            self._device[IMAGE.name][:n].copy_(self._host[IMAGE.name][:n], non_blocking=True)
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                raise RuntimeError("TensorRT did not enqueue the batch; its log above says why")
            for tensor in OUTPUTS:
                self._host[tensor.name][:n].copy_(self._device[tensor.name][:n], non_blocking=True)
        self._stream.synchronize()
        return Predictions.from_outputs({t.name: self._host[t.name][:n].numpy().copy() for t in OUTPUTS})


def _pinned(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    # Only from page-locked memory does a copy overlap with work on the stream.
    return torch.empty(shape, dtype=dtype, pin_memory=True)
