"""StructBERT, and any BERT with an entailment head, on a CPU or a CUDA device."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from transformers import BertForSequenceClassification
from transformers.utils import logging as transformers_logging

from tagging.errors import DeviceOutOfMemory, EngineDied, EngineError, ModelRefused
from workers.engines.device import DeviceClock, is_lost, is_out_of_memory, open_device
from workers.engines.passes import TokenBudget, halves, plan
from workers.engines.tokenizing import Encoded, PairEncoder, stack
from workers.ports import Entailment, Logit, ModelInfo, Pair

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.float32,  # loaded whole, its linear layers quantised afterwards
}

log = logging.getLogger(__name__)

# transformers builds a model under process-wide state; models loaded by several threads at once came out without
# weights in some of its versions.
_loading = threading.Lock()


class NliEngine:
    """Scores (text, hypothesis) pairs with one model on one device. For one thread at a time.

    Args:
        directory: A converted checkpoint (`workers.engines.conversion`).
        info: Who this model is; `precision` decides how it runs, `max_length` where a pair is cut.
        device: The device in torch's words; `info` may call it by another name.
        max_tokens: Padded tokens in one pass at most; a single longer pair is still scored.
        columns: Which logits are entailment and contradiction.
        exact: Read special tokens in a text as ModelScope does, for comparing with it.

    Raises:
        ModelRefused: The directory, the device or the precision is not one this engine can serve.
    """

    def __init__(
        self,
        directory: Path,
        *,
        info: ModelInfo,
        device: str,
        max_tokens: int,
        columns: tuple[int, int] = (0, 2),
        exact: bool = False,
    ) -> None:
        self._info = info
        self._device = open_device(device, info.precision)
        self._columns = list(columns)
        self._budget = TokenBudget(max_tokens)
        self._encoder = PairEncoder(directory, max_length=info.max_length, protect_special_tokens=not exact)
        self._model: torch.nn.Module | None = load_model(directory, info.precision).to(self._device)

    @property
    def info(self) -> ModelInfo:
        return self._info

    def entail(self, pairs: Sequence[Pair]) -> Entailment:
        """Entailment and contradiction logits of each pair.

        Equal pairs are computed once. Pairs are sorted by length and cut into passes within the token budget; a pass
        that does not fit the device is halved. Logits are float32 and may be infinite or NaN, where the model is.

        Raises:
            DeviceOutOfMemory: Not even one pair fits; nothing was scored.
            EngineDied: The device is lost until the process starts anew.
            EngineError: The device failed.
        """
        if not pairs:
            return Entailment(logits=[], tokens=[], padded_tokens=0, device_ms=0.0)
        unique = {pair: row for row, pair in enumerate(dict.fromkeys(pairs))}
        encoded = self._encoder.encode(list(unique))
        rows, padded_tokens, device_ms = self._score(encoded)
        return Entailment(
            logits=[rows[unique[pair]] for pair in pairs],
            tokens=[len(encoded[unique[pair]].ids) for pair in pairs],
            padded_tokens=padded_tokens,
            device_ms=device_ms,
        )

    def close(self) -> None:
        """Give the device's memory back; the engine scores nothing afterwards."""
        self._model = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _score(self, encoded: list[Encoded]) -> tuple[list[Logit], int, float]:
        try:
            with torch.inference_mode(), DeviceClock(self._device) as clock:
                order, logits, padded_tokens = self._run_passes(encoded)
                values = logits.float().cpu().tolist()  # the one place that waits for the device
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise DeviceOutOfMemory(f"{self._info.device}: out of memory while collecting answers") from error
            if is_lost(error):
                raise EngineDied(f"{self._info.device}: {_first_line(error)}") from error
            raise EngineError(f"{self._info.device}: {_first_line(error)}") from error
        rows = [Logit(0.0, 0.0)] * len(encoded)
        for index, (entailment, contradiction) in zip(order, values, strict=True):
            rows[index] = Logit(entailment, contradiction)
        return rows, padded_tokens, clock.ms

    def _run_passes(self, encoded: list[Encoded]) -> tuple[list[int], torch.Tensor, int]:
        """Every pair through the model: the order in which they went, their logits, and the tokens computed."""
        order: list[int] = []
        outputs: list[torch.Tensor] = []
        padded_tokens = 0
        shrunk = False
        todo = plan([len(pair.ids) for pair in encoded], max_tokens=self._budget.tokens)[::-1]
        while todo:
            indices = todo.pop()
            size = len(indices) * max(len(encoded[index].ids) for index in indices)
            output = self._try_pass([encoded[index] for index in indices])
            if output is not None:
                order += indices
                outputs.append(output)
                padded_tokens += size
                continue
            shrunk = True
            self._budget.shrink(size)
            log.warning("engine.shrunk max_tokens=%d failed_tokens=%d cause=OutOfMemory", self._budget.tokens, size)
            if len(indices) == 1:
                raise DeviceOutOfMemory(f"{self._info.device}: a single pair of {size} tokens does not fit")
            todo += halves(indices)[::-1]
        if not shrunk:
            self._budget.recover()
        return order, torch.cat(outputs), padded_tokens

    def _try_pass(self, encoded: list[Encoded]) -> torch.Tensor | None:
        """Logits of one pass, shape (n, 2), or None where the device has no room for it."""
        try:
            return self._forward(encoded)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler: the exception holds the frames, and with them the tensors, that we want freed.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _forward(self, encoded: list[Encoded]) -> torch.Tensor:
        if self._model is None:
            raise EngineError("this engine is closed")
        stacked = stack(encoded, pad_id=self._encoder.pad_id)
        longest = stacked.ids.shape[1]
        # Four dimensions: with two, transformers asks the mask whether all of it is set, and so waits for the device.
        mask = (
            None if stacked.present.all() else self._send(stacked.present)[:, None, None, :].expand(-1, 1, longest, -1)
        )
        output = self._model(
            input_ids=self._send(stacked.ids), token_type_ids=self._send(stacked.segments), attention_mask=mask
        )
        logits: torch.Tensor = output.logits[:, self._columns]
        return logits

    def _send(self, array: NDArray[Any]) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self._device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)


def load_model(directory: Path, precision: str) -> torch.nn.Module:
    """The model in `directory`, every weight of it from there, ready to infer.

    Raises:
        ModelRefused: A weight is missing, unexpected or of another shape.
    """
    with _loading, _no_progress_bar():
        result: Any = BertForSequenceClassification.from_pretrained(
            directory,
            dtype=DTYPES[precision],
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
        model, loaded = result
        wrong = {kind: sorted(map(str, names)) for kind, names in loaded.items() if names}
        if wrong:
            told = "; ".join(f"{kind}: {', '.join(names[:5])}" for kind, names in wrong.items())
            raise ModelRefused(f"{directory}: the weights do not fit the network. {told}. Remove it to convert again.")
        network: torch.nn.Module = model.eval()
        return _quantised(network) if precision == "int8" else network


@contextlib.contextmanager
def _no_progress_bar() -> Iterator[None]:
    untyped: Any = transformers_logging
    shown = untyped.is_progress_bar_enabled()
    untyped.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            untyped.enable_progress_bar()


def _quantised(model: torch.nn.Module) -> torch.nn.Module:
    """The model with 8-bit linear layers; activations are quantised as they come."""
    with warnings.catch_warnings():
        # torch announces that this moves to another package, which has no counterpart for CPUs without AMX yet. The
        # notices are silenced by their words, here only; should the API go, loading fails and says so.
        warnings.filterwarnings("ignore", message=r"torch\.ao\.quantization is deprecated", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=r"torch\.quantize_per_tensor", category=UserWarning)
        quantise: Any = torch.ao.quantization.quantize_dynamic
        quantised: torch.nn.Module = quantise(model, {torch.nn.Linear}, dtype=torch.qint8)
    return quantised


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
