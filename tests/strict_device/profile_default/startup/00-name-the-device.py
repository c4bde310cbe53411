"""In kernels that tests start, a factory call that names no device is an error: on a GPU it would be the wrong one.

``IPYTHONDIR=tests/strict_device`` makes IPython run this before the first cell of a notebook.
"""

import sys
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

_FACTORIES = _device_constructors() - {torch.sparse_compressed_tensor}
_TORCH = str(Path(torch.__file__).parent)


def _inside_torch(file: str) -> bool:
    """Whether torch calls itself; a module of torch.nn that is made without a device is the caller's mistake."""
    return file.startswith(_TORCH) and not file.startswith(f"{_TORCH}/nn/modules")


class NamedDevice(TorchFunctionMode):
    """Fails every call that makes a tensor out of nothing, or out of Python numbers, without ``device=``."""

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        converts = function in (torch.as_tensor, torch.asarray) and arguments and isinstance(arguments[0], torch.Tensor)
        named = keywords.get("device") is not None or function not in _FACTORIES or converts
        if not named and not _inside_torch(sys._getframe(1).f_code.co_filename):
            raise RuntimeError(f"torch.{function.__name__} must name its device, got no device=")
        return function(*arguments, **keywords)


if __name__ == "__main__":  # IPython runs startup files as part of the notebook; tests import this one
    NamedDevice().__enter__()
