"""Compares the engine with ModelScope's own pipeline; run by hand, since the two need different transformers.

    python -m venv /somewhere/modelscope
    /somewhere/modelscope/bin/pip install torch==2.13.0 transformers==4.57.6 modelscope==1.40.2 \
        addict datasets Pillow scipy simplejson sortedcontainers
    python -m tests.engine.modelscope_parity --modelscope-python /somewhere/modelscope/bin/python

Random checkpoints of every variant are written, both sides score the same cases in float32, and the token ids of random
texts are compared, too. `--checkpoint DIR` compares on a real one. Exit status 1 means that a difference exceeds 1e-5.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
from pathlib import Path
from typing import Any

TOLERANCE = 1e-5
LONG = "快递还没有送到，物流信息也不更新。"
LABELS = ["物流", "退款", "登录"]
MANY = ["家居", "旅游", "科技", "军事", "游戏", "故事", "物流", "退款", "发票", "账号", "密码", "售后"]

TEXTS = [
    "世界那么大，我想去看看",
    "",
    " ",
    "\n\t",
    "a",
    "我的App一直crash，订单号15，怎么refund？",
    "Hello, the order is not refunded!! ΑΒΓ ΟΔΟΣ Σ",
    "😀😀 好评 ❤️ 👨‍👩‍👧 🇨🇳 👍🏽",
    "🫠🫨🩷 新表情",
    "全角ＡＢＣ１２３，！？　空格",
    "控制\x00字符\x07\x1b[0m\x7f\u200b\u200d\ufeff\u202e结束",
    "[SEP] 退款 [SEP]",
    "请[MASK]发票[PAD][UNK][CLS]",
    "[sep] [Sep] [ SEP ]",
    "が か\u3099 é e\u0301 İ ı ß ﬁ",
    "한국어 텍스트 ありがとう カタカナ",
    "русский текст Ёлка",
    "עברית العربية हिन्दी ไทย",
    "𠀀𠮷𪚥 生僻字 㐀",
    "x" * 150,
    LONG * 120,
    "abc " * 500,
    "\u2028行\u2029段\u0085",
    "价格￥100.50（优惠5%）——“很好”…",
]
LABEL_SETS: list[tuple[list[str], str]] = [
    (["家居", "旅游", "科技"], "{}"),
    (LABELS, "这句话是关于{}的"),
    (MANY, "{}"),
    (["旅游"], "{}"),
    (["", "App crash", "[SEP]", "旅" * 600], "{}"),
    ([LONG * 30, LONG * 16 + "a"], "关于{}"),
]


def cases() -> list[dict[str, Any]]:
    return [
        {"text": text, "labels": labels, "template": template, "multi_label": (i + j) % 2 == 0}
        for i, text in enumerate(TEXTS)
        for j, (labels, template) in enumerate(LABEL_SETS)
    ]


def random_pairs(count: int) -> list[tuple[str, str]]:
    """Pairs of random texts: half from what tickets hold, half from all of Unicode, surrogates left out."""
    draw = random.Random(2026)
    ordinary = "的一是不了人我在有他这中大来上国 abcdefghijklmnopqrstuvwxyzABCΣΑσ0123456789，。！?#@[]{}😀❤️éüñ\n\t"

    def text() -> str:
        length = draw.choice((0, 1, 5, 20, 80, 255, 256, 600))
        if draw.random() < 0.5:
            return "".join(draw.choices(ordinary, k=length))
        points = (draw.choice((draw.randrange(0x250), draw.randrange(0xD800), draw.randrange(0xE000, 0x20000))),)
        return "".join(chr(draw.choice((*points, draw.randrange(0x3000)))) for _ in range(length))

    return [(text(), text()) for _ in range(count)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modelscope-python", help="interpreter of the environment that has modelscope")
    parser.add_argument("--checkpoint", type=Path, help="compare on this checkpoint instead of random ones")
    parser.add_argument("--pairs", type=int, default=2000, help="random pairs whose token ids are compared")
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        answer(options.answer)
        return 0
    with tempfile.TemporaryDirectory() as work:
        return compare(Path(work).resolve(), options)


def compare(work: Path, options: argparse.Namespace) -> int:
    directories = checkpoints(work, options.checkpoint)
    question: dict[str, Any] = {"cases": cases(), "pairs": random_pairs(options.pairs)}
    (work / "question.json").write_text(json.dumps(question), encoding="utf-8")
    worst = 0.0
    for name, directory in directories.items():
        # A process each: ModelScope keeps one checkpoint's prefix on the class and misreads the next with it.
        subprocess.run([options.modelscope_python, __file__, "--answer", str(directory)], cwd=work, check=True)
        theirs = json.loads((work / "answer.json").read_text(encoding="utf-8"))
        line = compare_checkpoint(directory, question, theirs, work / "cache")
        worst = max(worst, line["score"], 1.0 if line["ids"] else 0.0)
        print(
            f"{name:18} cases={line['cases']} scores={line['scores']} max|score|={line['score']:.1e}"
            f" max|logit|={line['logit']:.1e} pairs={len(question['pairs'])} other_ids={line['ids']}"
        )
    print(f"worst {worst:.1e}, tolerance {TOLERANCE:.0e}")
    return int(worst > TOLERANCE)


def checkpoints(work: Path, given: Path | None) -> dict[str, Path]:
    if given:
        return {given.name: given.resolve()}
    from tests.engine.checkpoints import VARIANTS, make_checkpoint

    # ModelScope does not know the prefix of a DataParallel wrapper: it starts from random weights and says nothing.
    variants = {name: variant for name, variant in VARIANTS.items() if not variant.module}
    return {name: make_checkpoint(work / "checkpoints" / name, variant) for name, variant in variants.items()}


def compare_checkpoint(
    directory: Path, question: dict[str, Any], theirs: dict[str, Any], cache: Path
) -> dict[str, Any]:
    """Largest differences on one checkpoint."""
    from workers.engines.build import build_engine
    from workers.engines.checkpoint import read_checkpoint
    from workers.engines.conversion import convert
    from workers.engines.tokenizing import PairEncoder
    from workers.ports import Pair

    engine = build_engine(str(directory), in_process=True, check=False, exact=True, cache_dir=cache, threads=1)
    line: dict[str, Any] = {"cases": 0, "scores": 0, "score": 0.0, "logit": 0.0}
    for case, their in zip(question["cases"], theirs["cases"], strict=True):
        pairs = [Pair(case["text"], case["template"].format(label)) for label in case["labels"]]
        logits = engine.entail(pairs).logits
        ours = scores([logit.entailment for logit in logits], [logit.contradiction for logit in logits], case)
        line["cases"] += 1
        line["scores"] += len(ours)
        line["score"] = max(line["score"], *(abs(ours[i] - their["scores"][i]) for i in range(len(ours))))
        flat = [value for logit in logits for value in logit]
        line["logit"] = max(line["logit"], *(abs(a - b) for a, b in zip(flat, their["logits"], strict=True)))
    checkpoint = read_checkpoint(directory)
    encoder = PairEncoder(
        convert(checkpoint, cache / "converted"), max_length=checkpoint.max_length, protect_special_tokens=False
    )
    encoded = encoder.encode([Pair(*pair) for pair in question["pairs"]])
    line["ids"] = sum(list(a.ids) != b for a, b in zip(encoded, theirs["ids"], strict=True))
    return line


def scores(entailment: list[float], contradiction: list[float], case: dict[str, Any]) -> list[float]:
    import numpy as np
    from scipy.special import softmax

    if case["multi_label"] or len(entailment) == 1:
        table = np.array([contradiction, entailment], dtype=np.float32).T
        return [float(value) for value in softmax(table, axis=-1)[:, 1]]
    return [float(value) for value in softmax(np.array(entailment, dtype=np.float32))]


def answer(directory: Path) -> None:
    """What ModelScope says of `question.json`, written to `answer.json`; runs in its own environment."""
    import torch
    from modelscope.pipelines import pipeline  # type: ignore[import-untyped]  # it ships no types

    torch.set_num_threads(1)
    question = json.loads(Path("question.json").read_text(encoding="utf-8"))
    pipe = pipeline("zero-shot-classification", str(directory))
    rows: list[list[float]] = []
    forward = pipe.model.forward
    pipe.model.forward = lambda *args, **options: _remembered(forward(*args, **options), rows)
    answered = [_ask(pipe, case, rows) for case in question["cases"]]
    encode = pipe.preprocessor.nlp_tokenizer
    ids = [encode([pair], padding=True, truncation=True)["input_ids"][0] for pair in question["pairs"]]
    Path("answer.json").write_text(json.dumps({"cases": answered, "ids": ids}), encoding="utf-8")


def _remembered(output: Any, rows: list[list[float]]) -> Any:
    logits = output["logits"] if isinstance(output, dict) else output.logits
    rows[:] = logits.tolist()
    return output


def _ask(pipe: Any, case: dict[str, Any], rows: list[list[float]]) -> dict[str, Any]:
    result = pipe(
        case["text"],
        candidate_labels=case["labels"],
        hypothesis_template=case["template"],
        multi_label=case["multi_label"],
    )
    by_label = dict(zip(result["labels"], result["scores"], strict=True))
    return {
        "scores": [by_label[label] for label in case["labels"]],
        "logits": [value for row in rows for value in (row[0], row[2])],
    }


if __name__ == "__main__":
    raise SystemExit(main())
