"""A table of tickets as helpdesks have them: many say the same, most are short, a few are long.

Made of sentences with slots, from a seed. Which text a row has follows Zipf's law: 20,000 rows have 5,700 texts, the
most frequent of which is in 3 % of the rows. Half of the rows have 37 characters or fewer, one in twenty more than 155.
"""

import random
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Final

_EXPONENT: Final = 0.8
"""Of Zipf's law: the text of rank ``r`` is drawn ``r ** -0.8`` times as often as the first."""
_MEDIAN_SENTENCES: Final = 1.5
_SPREAD: Final = 0.8
_MOST_SENTENCES: Final = 24

_CHINESE: Final = (
    "订单{order}付款后一直显示处理中",
    "快递{order}三天没有更新了",
    "{item}收到的时候外壳已经裂了",
    "我想把{item}退掉，请问怎么操作",
    "退款说{days}个工作日到账，现在还没有收到",
    "发票抬头写错了，订单{order}能不能重开一张",
    "{day}用{card}付了两次，请退一次",
    "登录{app}的时候收不到验证码",
    "换了手机以后{app}一直闪退",
    "客服{day}说会回电话，到现在没有人联系我",
    "{order}的地址填错了，麻烦改成公司的地址",
    "{item}和页面上写的颜色不一样",
    "优惠券{order}用不了，提示不在活动时间内",
    "请帮我查一下{order}什么时候发货",
    "会员自动续费了{days}个月，我没有同意过",
    "{item}用了{days}天就充不进电了",
    "我已经等了{days}天，实在等不下去了",
    "谢谢，{day}的师傅很耐心，问题解决了",
)
_ENGLISH: Final = (
    "The parcel {order} has not moved for {days} days",
    "I was charged twice for the {item} with my {card}",
    "{app} closes as soon as I open the settings",
    "Please send the invoice for order {order} again",
    "The {item} arrived broken and I would like a refund",
    "Nobody has called me back since {day}",
)
_LANGUAGES: Final = (
    (
        _CHINESE,
        "，",
        {
            "item": ("耳机", "电饭煲", "行李箱", "充电宝", "儿童座椅", "显示器", "键盘", "烧水壶"),
            "day": ("昨天", "上周五", "今天早上", "前天晚上", "节前"),
            "card": ("信用卡", "储蓄卡", "零钱"),
            "app": ("手机客户端", "小程序", "平板上的应用"),
        },
    ),
    (
        _ENGLISH,
        ". ",
        {
            "item": ("headphones", "rice cooker", "suitcase", "charger", "monitor", "kettle"),
            "day": ("yesterday", "last Friday", "this morning", "the holidays"),
            "card": ("credit card", "debit card", "gift card"),
            "app": ("The app", "The web shop", "The tablet version"),
        },
    ),
)
_SHARES: Final = (80, 20)


def tickets(rows: int, *, seed: int = 1) -> list[str]:
    """The texts of so many rows."""
    rng = random.Random(seed)
    pool = [_text(rng) for _ in range(rows)]
    weights = list(accumulate(rank**-_EXPONENT for rank in range(1, rows + 1)))
    return rng.choices(pool, cum_weights=weights, k=rows)


def _text(rng: random.Random) -> str:
    [(sentences, joint, slots)] = rng.choices(_LANGUAGES, weights=_SHARES)
    count = min(_MOST_SENTENCES, max(1, round(rng.lognormvariate(0, _SPREAD) * _MEDIAN_SENTENCES)))
    return joint.join(_filled(rng.choice(sentences), slots, rng) for _ in range(count))


def _filled(sentence: str, slots: Mapping[str, Sequence[str]], rng: random.Random) -> str:
    words = {name: rng.choice(choices) for name, choices in slots.items()}
    return sentence.format(order=rng.randrange(10**8, 10**9), days=rng.randrange(2, 30), **words)
