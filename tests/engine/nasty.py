"""Texts and hypotheses on which tokenizers and truncation differ most easily."""

from workers.ports import Pair

LABELS = ["物流", "退款", "登录"]
LONG = "快递还没有送到，物流信息也不更新。" * 120  # over 2,000 characters

NASTY = {
    "empty": ("", LABELS),
    "blank": (" \n\t　", LABELS),
    "one character": ("a", LABELS),
    "2,000 characters": (LONG[:2000], LABELS),
    "both long": (LONG, [LONG[:700], LONG[1:900]]),
    "hypothesis longer than the text": ("退款", ["这句话是关于物流信息" * 20, "退款"]),
    "empty hypothesis": ("我要退款", ["", "退款"]),
    "emoji": ("😀😀 好评 ❤️ 👨‍👩‍👧 🇨🇳 👍🏽", LABELS),
    "emoji newer than the tables": ("🫠🫨🩷 退款", LABELS),
    "special tokens typed": ("[SEP] 退款 [MASK][PAD] [CLS]", ["[SEP]", "退款"]),
    "full-width": ("ＡＢＣ１２３，！？　空格", LABELS),
    "control characters": ("退\x00款\x07\x1b[0m\u200b\u202e结束\x7f", LABELS),
    "mixed languages": ("我的App一直crash, refund please! Σ ΟΔΟΣ あア 한국어 עברית", LABELS),
    "marks": ("e\u0301 é が か\u3099 İ ß ﬁ", LABELS),
    "long word": ("x" * 150 + " 退款", LABELS),
    "one label": ("我要退款", ["退款"]),
    "many labels": ("我要退款", [f"{first}{second}" for first in "物流退款" for second in "登录账号"]),
    "same label twice": ("我要退款", ["退款", "退款", "物流"]),
}


def pairs_of(name: str) -> list[Pair]:
    text, hypotheses = NASTY[name]
    return [Pair(text, hypothesis) for hypothesis in hypotheses]
