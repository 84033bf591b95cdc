"""The model card that training writes beside the weights: what the demo model is, and how well it does."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from transformers import BertForSequenceClassification

from lab.checkpoint import load_checkpoint
from lab.evaluate import Figures
from lab.lexicon import load_lexicon
from lab.phrasings import TEMPLATE, load_phrasings
from lab.texts import Family, load_texts, of_split

CARD = Path(__file__).with_suffix(".md")
COLUMNS = {
    "default template": "accuracy",
    "bare label": "bare",
    "English labels": "english",
    "on English texts": "english_texts",
    "unseen wording": "unseen_wording",
    "alone: F1": "macro_f1",
    "right": "recall",
    "wrong a text": "wrong_accepted",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How the weights came about."""

    seed: int
    threads: int
    steps: int
    epochs: int
    minutes: float


def write_card(directory: Path, run: Run, figures: Mapping[Family, Figures], baseline: Mapping[Family, float]) -> None:
    """Write ``README.md`` into a checkpoint directory."""
    facts = _network(load_checkpoint(directory)) | _data() | _run(run)
    weights = (directory / "model.safetensors").stat().st_size
    card = Template(CARD.read_text(encoding="utf-8")).substitute(
        facts, megabytes=f"{weights / 1e6:.1f}", template=TEMPLATE, figures=_table(figures, baseline)
    )
    (directory / "README.md").write_text(card, encoding="utf-8")


def _network(model: BertForSequenceClassification) -> dict[str, str]:
    config = model.config
    return {
        "layers": str(config.num_hidden_layers),
        "hidden": str(config.hidden_size),
        "heads": str(config.num_attention_heads),
        "positions": str(config.max_position_embeddings),
        "vocabulary": f"{config.vocab_size:,}",
        "parameters": f"{sum(weight.numel() for weight in model.parameters()) / 1e6:.1f} million",
    }


def _data() -> dict[str, str]:
    texts = load_texts()
    terms = [term for labels in load_lexicon().values() for row in labels.values() for term in (*row.zh, *row.en)]
    wordings = [word for labels in load_phrasings().values() for row in labels.values() for word in (*row.zh, *row.en)]
    return {
        "train_texts": f"{len(of_split(texts, 'train')):,}",
        "dev_texts": str(len(of_split(texts, "dev"))),
        "terms": f"{len(terms):,}",
        "wordings": f"{len(wordings):,}",
    }


def _run(run: Run) -> dict[str, str]:
    return {
        "seed": str(run.seed),
        "threads": str(run.threads),
        "steps": f"{run.steps:,}",
        "epochs": str(run.epochs),
        "minutes": f"{run.minutes:.0f}",
    }


def _table(figures: Mapping[Family, Figures], baseline: Mapping[Family, float]) -> str:
    lines = [_row("", *COLUMNS, "baseline"), _row(*["---"] * (len(COLUMNS) + 2))]
    for family, row in figures.items():
        values = [getattr(row, column) for column in COLUMNS.values()]
        lines.append(_row(family, *(f"{value:.2f}" for value in [*values, baseline[family]])))
    return "\n".join(lines)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
