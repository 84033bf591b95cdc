"""Layers that lie in the machine's memory and visit the device in turn: for cards smaller than the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from workers.engines.bert import Layer, Weights
from workers.engines.cuda import Streams


class Place(NamedTuple):
    """Room for one layer on the device."""

    weights: Weights
    layer: Layer  # computes with whatever weights lie there
    free: Any  # the mark behind the last work that reads them


class VisitingLayers:
    """The layers in order, through two places on the device: while one computes, the next is copied to the other.

    Nothing waits on the host; the streams wait for one another. Has not run on a GPU yet.

    Args:
        hosted: The weights of each layer, by names within it; all of one shape, pinned where the device is a GPU.
        make: Makes a layer that computes with these tensors where they are.
    """

    def __init__(self, hosted: Sequence[Weights], *, make: Callable[[Weights], Layer], streams: Streams) -> None:
        self._hosted = hosted
        self._streams = streams
        self._places = [self._place(make) for _ in range(2)]

    def __iter__(self) -> Iterator[Layer]:
        for index, weights in enumerate(self._hosted):
            place = self._places[index % 2]
            self._streams.copying.wait_event(place.free)  # the layer before last has computed
            with self._streams.on_copying():
                for name, tensor in weights.items():
                    place.weights[name].copy_(tensor, non_blocking=True)
            self._streams.computing.wait_stream(self._streams.copying)
            yield place.layer
            place.free.record(self._streams.computing)

    def _place(self, make: Callable[[Weights], Layer]) -> Place:
        weights = {
            name: torch.empty_like(tensor, device=self._streams.device) for name, tensor in self._hosted[0].items()
        }
        return Place(weights, make(weights), self._streams.event())
