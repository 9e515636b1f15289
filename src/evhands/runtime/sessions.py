"""Sessions of onnxruntime and OpenVINO on the CPU, behind one face."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from evhands.types import InputError

Engine = Literal["onnx", "openvino"]
"""What runs an exported file: onnxruntime or OpenVINO."""


class Session(Protocol):
    """A network that was read from an ONNX file, and can be called by several Python threads at once.

    inputs: shape of every input by its name. outputs: their names. metadata: of the file.
    """

    @property
    def inputs(self) -> Mapping[str, list[int]]: ...

    @property
    def outputs(self) -> frozenset[str]: ...

    @property
    def metadata(self) -> Mapping[str, str]: ...

    def run(self, outputs: Sequence[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]: ...


def open_session(model: Path | bytes, threads: int, engine: Engine = "onnx") -> Session:
    """A session for a file, or the bytes of one; InputError where the engine is missing or cannot read it."""
    package, extra, opened = _ENGINES[engine]
    if isinstance(model, Path) and not model.is_file():
        raise InputError(f"There is no file {model}. Wanted a model written by `evhands export`; check the path.")
    try:
        return opened(model, threads)
    except ImportError as error:
        raise InputError(
            f"Running an exported model needs {package}, which is not installed. "
            f"Install it with: pip install 'evhands[{extra}]'."
        ) from error
    except Exception as error:  # both raise a dozen kinds, all derived from Exception alone
        name = model if isinstance(model, Path) else "a part of the file"
        raise InputError(
            f"Could not read {name} as an ONNX model ({' '.join(str(error).split())[:200]}). Wanted a model written by "
            "`evhands export`; export it again, or copy it again if it is truncated."
        ) from error


class _OnnxruntimeSession:
    def __init__(self, model: Path | bytes, threads: int):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        # Threads that wait between windows by running in circles would take a core from the rest of a live program.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(model) if isinstance(model, Path) else model, options, providers=["CPUExecutionProvider"]
        )
        self.inputs = {value.name: list(value.shape) for value in self._session.get_inputs()}
        self.outputs = frozenset(value.name for value in self._session.get_outputs())
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, outputs: Sequence[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        return self._session.run(outputs, feeds)


class _OpenvinoSession:
    def __init__(self, model: Path | bytes, threads: int):
        import openvino

        core = openvino.Core()
        read = core.read_model(str(model) if isinstance(model, Path) else model)
        self.inputs = {value.get_any_name(): [int(size) for size in value.shape] for value in read.inputs}
        # Of an output it knows the names of all that gives the same value.
        self.outputs = frozenset(name for value in read.outputs for name in value.get_names())
        # "framework" is where the reader of ONNX puts the metadata of the file; it is missing where there are none.
        metadata = read.get_rt_info()["framework"] if read.has_rt_info(["framework"]) else {}
        self.metadata = {name: str(value.value) for name, value in metadata.items()}
        self._compiled = core.compile_model(
            read,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": threads,
                "PERFORMANCE_HINT": "LATENCY",
                "ENABLE_CPU_PINNING": False,  # two sessions, or two programs, would be pinned to the same core
                # Left to itself, OpenVINO takes bfloat16 wherever the processor has it, for the decoding and the hand
                # model too, which need more than its three digits.
                "INFERENCE_PRECISION_HINT": "f32",
            },
        )
        self._request = threading.local()  # a request can be used by one thread at a time

    def run(self, outputs: Sequence[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        if not hasattr(self._request, "of_thread"):
            self._request.of_thread = self._compiled.create_infer_request()
        found: Any = self._request.of_thread.infer(feeds, share_inputs=True)
        return [found[name] for name in outputs]


_ENGINES: dict[Engine, tuple[str, str, type[_OnnxruntimeSession | _OpenvinoSession]]] = {
    "onnx": ("onnxruntime", "export", _OnnxruntimeSession),
    "openvino": ("openvino", "openvino", _OpenvinoSession),
}
"""Package, extra of evhands that installs it, and session of an engine."""
