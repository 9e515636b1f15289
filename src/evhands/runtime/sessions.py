"""Sessions of onnxruntime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evhands.types import InputError


def open_session(model: Path | bytes, threads: int) -> Any:
    """A session for a file, or the bytes of one; InputError where onnxruntime is missing or cannot read it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            "Running an exported model needs onnxruntime, which is not installed. "
            "Install it with: pip install 'evhands[export]'."
        ) from error
    if isinstance(model, Path) and not model.is_file():
        raise InputError(f"There is no file {model}. Wanted a model written by `evhands export`; check the path.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # Threads that wait between windows by running in circles would take a core from the rest of a live program.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            str(model) if isinstance(model, Path) else model, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime raises a dozen kinds, all derived from Exception alone
        name = model if isinstance(model, Path) else "a part of the file"
        raise InputError(
            f"Could not read {name} as an ONNX model ({' '.join(str(error).split())[:200]}). Wanted a model written by "
            "`evhands export`; export it again, or copy it again if it is truncated."
        ) from error
