"""From settings to an engine that is loaded, warm and tested."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tagging.errors import ModelRefused
from workers.engines.catalogue import MODELS_TOML, cache_root, load_catalogue, resolve
from workers.engines.checkpoint import SHORTEST
from workers.engines.cores import usable_cores
from workers.engines.fake import fake_engine, is_fake
from workers.engines.options import DEFAULT, Backend, TorchOptions
from workers.engines.process import EngineProcess
from workers.engines.revival import RevivedEngine
from workers.ports import Engine, ModelInfo, Pair

MAX_TOKENS = {"cpu": 1024, "cuda": 16384}  # measured: a CPU is fastest with small passes, a GPU wants large ones
PRIMITIVES = "64"
"""Kernels that oneDNN keeps. Packed passes have ever new lengths, each with kernels of its own, of half a megabyte; by
default 1,024 of them stay. Making one anew takes less than a millisecond in a pass of hundreds."""
FACTORY = "workers.engines.build:load_engine"


def build_engine(
    model: str = "demo",
    *,
    device: str = "cpu",
    precision: str | None = None,
    max_tokens: int | None = None,
    max_length: int | None = None,
    threads: int | None = None,
    backend: Backend = "auto",
    options: TorchOptions = DEFAULT,
    exact: bool = False,
    cache_dir: Path | None = None,
    catalogue: Path = MODELS_TOML,
    in_process: bool = False,
    check: bool = True,
    timeout_s: float = 120.0,
    start_timeout_s: float = 600.0,
    log_level: str = "warning",
) -> Engine:
    """An engine for `model`: a name of the catalogue, a checkpoint directory, or `fake` (see `workers.engines.fake`).

    Args:
        device: `cpu`, `cuda`, `cuda:N`, or `auto` for a GPU where there is one.
        precision: float32, bfloat16, float16 or int8; None chooses float16 on a GPU and float32 on a CPU.
        max_tokens: Tokens of one pass; None chooses by the device.
        max_length: Tokens where pairs are cut; None for the model's own, which cannot be exceeded.
        threads: CPU threads of the engine; None for as many as the cores it may use.
        backend: What computes; `auto` is OpenVINO on a CPU and torch on a GPU.
        options: How torch computes.
        exact: Treat special tokens in texts as ModelScope does, for comparing with it.
        cache_dir: Holds `models/` (fetched) and `converted/`.
        in_process: Load it here instead of in a process of its own.
        check: Warm up and run the self-test; a network without training needs False.
        timeout_s: How long a call may take before the engine's process is killed.
        start_timeout_s: The same for loading.
        log_level: What its process says on standard error: events of this level and above.

    Raises:
        ModelRefused: The model cannot be served; says why and what to do.
        EngineDied: Its process ended before it was ready.
    """
    load = partial(
        load_engine,
        model=model,
        device=device,
        precision=precision,
        max_tokens=max_tokens,
        max_length=max_length,
        threads=threads,
        backend=backend,
        options=options,
        exact=exact,
        cache_dir=cache_dir,
        catalogue=catalogue,
        check=check,
    )
    if in_process:
        return load()
    environment = child_environment(device, threads, os.environ)
    here = {"open_as": "cuda:0"} if "CUDA_VISIBLE_DEVICES" in environment else {}
    return RevivedEngine(
        EngineProcess(
            FACTORY,
            load.keywords | here,
            environment=environment,
            timeout_s=timeout_s,
            start_timeout_s=start_timeout_s,
            log_level=log_level,
        )
    )


def load_engine(
    *,
    model: str,
    device: str,
    precision: str | None,
    max_tokens: int | None,
    max_length: int | None,
    threads: int | None,
    backend: Backend,
    options: TorchOptions,
    exact: bool,
    cache_dir: Path | None,
    catalogue: Path,
    check: bool,
    open_as: str | None = None,
) -> Engine:
    """An engine in this process; see `build_engine`. `open_as` is what the device is called here, if not `device`."""
    if is_fake(model):
        return fake_engine(model)
    # Imported here: the parent of an engine process, which imports this module, has no use for torch.
    from workers.engines.checkpoint import read_checkpoint
    from workers.engines.conversion import convert
    from workers.engines.device import choose_device, default_precision, set_threads
    from workers.engines.fetch import verified_revision
    from workers.engines.nli import NliEngine
    from workers.engines.self_test import self_test, warm_up
    from workers.engines.tokenizing import PairEncoder

    device = choose_device() if device == "auto" else device
    if threads or device == "cpu":
        set_threads(threads or usable_cores())
    root = cache_dir or cache_root()
    found = resolve(model, catalogue=load_catalogue(catalogue), models_dir=root / "models")
    checkpoint = read_checkpoint(found.directory)
    revision = verified_revision(checkpoint)
    kind = device.partition(":")[0]
    budget = max_tokens or MAX_TOKENS.get(kind, MAX_TOKENS["cpu"])
    info = ModelInfo(
        name=found.name,
        fingerprint=checkpoint.fingerprint,
        revision=revision,
        family=found.entry.family,
        precision=precision or default_precision(device),
        device=device,
        max_length=_max_length(max_length, own=min(found.entry.max_length, checkpoint.max_length)),
        template=checkpoint.template or found.entry.template,
        exact=exact,
    )
    directory = convert(checkpoint, root / "converted")
    columns = (found.entry.entailment, found.entry.contradiction)
    if choose_backend(backend, device, info.precision) == "openvino":
        from workers.engines.openvino_network import OpenVinoNetwork

        network: Any = OpenVinoNetwork(
            directory, precision=info.precision, exports=root / "exported", threads=threads, columns=columns
        )
    else:
        from workers.engines.torch_network import TorchNetwork

        network = TorchNetwork(
            directory, device=open_as or device, precision=info.precision, columns=columns, options=options
        )
    encoder = PairEncoder(directory, max_length=info.max_length, protect_special_tokens=not exact)
    engine = NliEngine(encoder, network, info=info, max_tokens=budget)
    if check:
        network.warm_up(max_length=info.max_length, max_tokens=budget)
        warm_up(engine, max_tokens=budget if kind == "cuda" else 0)
        yes, no = (
            Pair(example.text, info.template.replace("{}", example.label))
            for example in (found.entry.self_test.entailed, found.entry.self_test.contradicted)
        )
        self_test(engine, entailed=yes, contradicted=no)
    return engine


def choose_backend(asked: Backend, device: str, precision: str) -> Backend:
    """What computes in this precision on this device.

    Raises:
        ModelRefused: What is asked for does not.
    """
    chosen: Backend = asked
    if asked == "auto":
        chosen = "openvino" if device == "cpu" and precision != "float16" else "torch"
    if chosen == "openvino" and device != "cpu":
        raise ModelRefused(f"model.backend is openvino, which is for CPUs, but the device is {device}. Set it to auto.")
    if chosen == "torch" and precision == "int8":
        raise ModelRefused("precision int8 is computed by OpenVINO, on a CPU. Set model.backend to auto.")
    return chosen


def _max_length(asked: int | None, *, own: int) -> int:
    if asked is None:
        return own
    if not SHORTEST <= asked <= own:
        raise ModelRefused(f"model.max_length is {asked}, expected {SHORTEST} to {own}, which is what the model reads.")
    return asked


def child_environment(device: str, threads: int | None, parent: Mapping[str, str]) -> dict[str, str]:
    """What an engine process must find in its environment before it imports torch."""
    environment = {"TOKENIZERS_PARALLELISM": "false", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": PRIMITIVES}
    if threads is not None:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    kind, _, index = device.partition(":")
    if kind == "cuda":
        environment["CUDA_VISIBLE_DEVICES"] = _visible_name(device, int(index or 0), parent.get("CUDA_VISIBLE_DEVICES"))
    return environment


def _visible_name(device: str, index: int, visible: str | None) -> str:
    """The driver's name of a device: `cuda:1` is the second of those that this process may see."""
    if visible is None:
        return str(index)
    names = [name.strip() for name in visible.split(",") if name.strip()]
    if index >= len(names):
        raise ModelRefused(
            f"device is {device!r}, but CUDA_VISIBLE_DEVICES={visible!r} leaves {len(names)} GPUs to this process."
        )
    return names[index]
