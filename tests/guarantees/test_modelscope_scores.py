"""Scores equal those of ModelScope's own pipeline within 1e-5 in float32.

``Reference`` is that pipeline in a page; ``tests/engine/modelscope_parity.py`` compares with ModelScope itself, in an
environment of its own. However pairs are batched: ``tests/engine/test_nli.py``.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from tests.engine.checkpoints import VARIANTS, make_checkpoint
from tests.engine.nasty import NASTY, pairs_of
from tests.engine.reference import Reference
from workers.engines.build import build_engine
from workers.ports import Engine
from workers.scoring import score

TOLERANCE = 1e-5
Model = tuple[Engine, Reference]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Model]:
    """The engine as a worker builds it for a checkpoint of this variant, and the pipeline that it is compared with."""
    folder = tmp_path_factory.mktemp("checkpoints")

    @cache
    def both(variant: str, backend: str) -> Model:
        directory = make_checkpoint(folder / variant, VARIANTS[variant])
        engine = build_engine(
            str(directory),
            backend=backend,  # type: ignore[arg-type]  # one of its names
            exact=True,
            in_process=True,
            check=False,
            cache_dir=folder / "cache",
            threads=1,
        )
        return engine, Reference(directory)

    return both


@pytest.mark.parametrize("variant", ["plain", "half"])
@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize("multi_label", [False, True], ids=["single", "multi"])
@pytest.mark.parametrize("name", NASTY)
def test_scores_are_those_of_the_pipeline(
    model: Callable[[str, str], Model], name: str, multi_label: bool, backend: str, variant: str
) -> None:
    engine, pipeline = model(variant, backend)
    logits = engine.entail(pairs_of(name)).logits
    expected = pipeline.scores(*NASTY[name], multi_label=multi_label)
    assert np.abs(np.array(score(logits, multi_label=multi_label)) - expected).max() < TOLERANCE
    assert np.abs(np.array(logits) - pipeline.logits(*NASTY[name])[:, [0, 2]]).max() < TOLERANCE
