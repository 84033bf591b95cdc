"""What goes wrong for a caller, as RFC 9457 problem documents, in English or Chinese.

``type`` is stable and is what programs look at; ``title`` and ``detail`` are for people.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from starlette.responses import JSONResponse

Language = Literal["en", "zh"]

MEDIA_TYPE: Final = "application/problem+json"
_TYPE: Final = "urn:tagmill:problem:"

_TITLES: Final[Mapping[str, tuple[int, str, str]]] = {
    "not-json": (400, "The body is not JSON", "请求体不是 JSON"),
    "unauthorized": (401, "An API key is needed", "需要 API 密钥"),
    "forbidden": (403, "This key may not do that", "此密钥无权执行该操作"),
    "not-found": (404, "There is no such thing", "未找到"),
    "method-not-allowed": (405, "This method is not allowed here", "此处不允许该方法"),
    "too-slow": (408, "The request took too long to arrive", "请求发送过慢"),
    "erased": (410, "The document was erased", "该文档已被删除"),
    "too-large": (413, "The body is too large", "请求体过大"),
    "unsupported-media-type": (415, "This kind of body is not understood", "不支持此类请求体"),
    "invalid-message": (422, "The message cannot be done as it is", "消息无法按原样处理"),
    "key-reused": (422, "This Idempotency-Key was used for another message", "此 Idempotency-Key 已用于另一条消息"),
    "not-tagged": (422, "The message was accepted and could not be tagged", "消息已接收但无法打标签"),
    "too-many-requests": (429, "This key makes too many requests", "此密钥请求过于频繁"),
    "busy": (429, "Too much is waiting to be tagged", "待处理的消息过多"),
    "header-too-large": (431, "A header is too large", "请求头过大"),
    "failed": (500, "Something went wrong here", "服务内部出错"),
    "unavailable": (503, "The ledger cannot be reached", "账本暂时不可用"),
}

_NUMBER: Final = r"([\d,]+)"
_CHINESE: Final = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (rf"labels: {_NUMBER} given, limit is {_NUMBER}.*", "labels：共 {0} 个，上限为 {1} 个"),
        (r"labels: none given.*", "labels：未提供；请发送 labels，或 label_set 的名称"),
        (r"labels and label_set: give one of them, not both", "labels 与 label_set：只能提供其一"),
        (r"text: missing", "text：缺失"),
        (r"id: is given here; .*", "id：由服务端分配；如需一次性提交请使用 Idempotency-Key"),
        (r"kind: expected ticket or comment", "kind：应为 ticket 或 comment"),
        (r"text: empty after cleaning.*", "text：清洗后为空；请发送至少 1 个字符"),
        (rf"text: {_NUMBER} characters, limit is {_NUMBER}", "text：共 {0} 个字符，上限为 {1} 个"),
        (r"no label set '(.*)'; this worker knows: (.*)", "没有标签集“{0}”；可用的有：{1}"),
        (r"([\w.]+): unknown field", "{0}：未知字段"),
        (r"([\w.]+): missing", "{0}：缺失"),
        (r"([\w.]+): expected a text", "{0}：应为文本"),
        (r"([\w.]+): expected a list", "{0}：应为列表"),
        (r"([\w.]+): expected a whole number", "{0}：应为整数"),
        (r"([\w.]+): expected true or false", "{0}：应为 true 或 false"),
        (r"message: expected a JSON object, got (.*)", "消息：应为 JSON 对象，收到 {0}"),
    )
)


@dataclass(kw_only=True, eq=False)  # not frozen: whoever passes an exception on sets its traceback
class Problem(Exception):
    """An answer that is an error; any route may raise it."""

    kind: str
    """A key of the table above; ends the ``type``."""
    detail: str = ""
    """In English; what is known in Chinese is translated."""
    chinese: str = ""
    """The detail in Chinese, where a translation of ``detail`` would not do."""
    members: Mapping[str, Any] = field(default_factory=dict)
    """More members of the document, such as ``field`` or ``errors``."""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return _TITLES[self.kind][0]

    def response(self, language: Language) -> JSONResponse:
        """The problem document in this language."""
        status, english, chinese = _TITLES[self.kind]
        in_chinese = language == "zh"
        detail = (self.chinese or translated(self.detail)) if in_chinese else self.detail
        document = {
            "type": _TYPE + self.kind,
            "title": chinese if in_chinese else english,
            "status": status,
            **({"detail": detail} if detail else {}),
            **self.members,
        }
        headers = {**self.headers, "Content-Language": language}
        return JSONResponse(document, status_code=status, headers=headers, media_type=MEDIA_TYPE)


def kinds() -> dict[str, int]:
    """Every kind of problem with its HTTP status."""
    return {kind: status for kind, (status, _, _) in _TITLES.items()}


def language_of(accept_language: str) -> Language:
    """The one of our languages that the header asks for most; English where it asks for neither.

    Source: RFC 9110, section 12.5.4.
    """
    wanted: dict[str, float] = {}
    for part in accept_language.split(",")[:20]:
        tag, _, weight = part.strip().partition(";")
        name = tag.strip().lower().partition("-")[0]
        if name in ("en", "zh"):
            wanted[name] = max(wanted.get(name, 0.0), _weight(weight))
    return "zh" if wanted.get("zh", 0.0) > wanted.get("en", 0.0) else "en"


def translated(detail: str) -> str:
    """The detail in Chinese, part by part; what is not in the table stays English."""
    whole = _translated(detail)
    return whole if whole != detail else "；".join(map(_translated, detail.split("; ")))


def _translated(part: str) -> str:
    for pattern, words in _CHINESE:
        if match := pattern.fullmatch(part):
            return words.format(*match.groups())
    return part


def _weight(parameter: str) -> float:
    match = re.fullmatch(r"\s*q=([01](?:\.\d{0,3})?)\s*", parameter)
    return float(match[1]) if match else 1.0
