"""The second tier: Redis, shared by every worker. Slow or gone, it is skipped: answers never wait for it.

Two keys a text, both with a time to live: ``tagmill:pairs:<model>:<text digest>`` holds the records of its pairs (see
``workers.stores.logits``), and the same with ``:claims`` behind it says which worker is computing which pair, as the
hypothesis' digest and the worker's name, 8 bytes each. Strings rather than hashes: a text's pairs are read as one
value, whatever their number (ADR-0008).
"""

import time
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tagging.errors import SettingsError
from workers.ports import Claimed, KnownPairs, Meter, TextKey, WantedPairs
from workers.stores.breaker import Breaker
from workers.stores.logits import DIGEST_BYTES, pack, unpack

PREFIX: Final = "tagmill:pairs"
CLAIMS: Final = ":claims"
"""Ends the name of the key that says who is computing what."""
PAUSE_S: Final = 1.0
MAX_TEXT_BYTES: Final = 64 * 1024
"""What is kept of one text, 4,096 pairs; a text that is asked even more starts anew."""

# KEYS: for each text its pairs. ARGV: seconds to live, most bytes of a text, then for each text its new records.
_PUT: Final = """
local ttl_s, most_bytes = ARGV[1], tonumber(ARGV[2])
for i, key in ipairs(KEYS) do
  local records = ARGV[2 + i]
  local length = redis.pcall('STRLEN', key)
  local ours = type(length) == 'number' and length > 0 and length % 16 == 0
  if ours and length + #records <= most_bytes then
    redis.call('APPEND', key, records)
    redis.call('EXPIRE', key, ttl_s)
  else
    redis.call('SET', key, records, 'EX', ttl_s)
  end
end
"""
# KEYS: each text's pairs; the name of its claims is made here, which halves what is sent. ARGV: claimant, lifetime
# of a claim in ms, then for each text the digests wanted. Answers each text's records, then what others promised of it.
_CLAIM: Final = """
local claimant, lifetime_ms = ARGV[1], ARGV[2]
local known, promised = {}, {}

local function read(key)
  local value = redis.pcall('GET', key)
  return type(value) == 'string' and #value % 16 == 0 and value or ''
end

-- Not `call`: a Redis that is full refuses to write, and still has answers to give.
local function claim(key, claims, digests)
  local records = string.gsub(digests, '........', function(digest) return digest .. claimant end)
  if claims == '' then
    redis.pcall('SET', key, records, 'PX', lifetime_ms)
  else
    redis.pcall('APPEND', key, records)
  end
end

local function sift(wanted, records, claims)
  local answered, by, free, taken = {}, {}, {}, {}
  for at = 1, #records, 16 do answered[string.sub(records, at, at + 7)] = true end
  for at = 1, #claims, 16 do by[string.sub(claims, at, at + 7)] = string.sub(claims, at + 8, at + 15) end
  for at = 1, #wanted, 8 do
    local digest = string.sub(wanted, at, at + 7)
    if not answered[digest] then
      if not by[digest] then
        free[#free + 1] = digest
      elseif by[digest] ~= claimant then
        taken[#taken + 1] = digest
      end
    end
  end
  return table.concat(free), table.concat(taken)
end

for i, key in ipairs(KEYS) do
  local claims_key = key .. ':claims'
  local wanted, records, claims = ARGV[2 + i], read(key), read(claims_key)
  local free, taken = wanted, ''
  if records ~= '' or claims ~= '' then free, taken = sift(wanted, records, claims) end
  if free ~= '' then claim(claims_key, claims, free) end
  known[i], promised[i] = records, taken
end
return {known, promised}
"""
_FAILURES: Final = (redis.RedisError, OSError)


class RedisPairCache:
    """A ``SharedPairCache`` in Redis; a text's pairs for ``ttl_s`` seconds after the last of them was written.

    After a failure the cache is left alone for ``pause_s`` seconds, so that an outage costs one timeout a second
    rather than two a batch.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        ttl_s: int,
        pause_s: float = PAUSE_S,
        meter: Meter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._ttl_s = ttl_s
        self._breaker = Breaker(pause_s=pause_s, meter=meter, clock=clock)
        self._put = client.register_script(_PUT)
        self._claim = client.register_script(_CLAIM)

    @classmethod
    def connect(
        cls, url: str, *, ttl_s: int, meter: Meter, timeout_ms: int = 50, connect_timeout_ms: int = 200
    ) -> Self:
        """A cache at this URL; nothing is connected yet.

        Raises:
            SettingsError: The URL is not one that the client understands.
        """
        try:
            client = redis.Redis.from_url(
                # Celery's spelling of a socket's path, so that one setting can serve both.
                url.replace("redis+socket://", "unix://", 1),
                socket_timeout=timeout_ms / 1000,
                socket_connect_timeout=connect_timeout_ms / 1000,
                # The library would try ten times; a cache that has to be asked twice is slower than the device.
                retry=Retry(NoBackoff(), 0),
                protocol=2,  # RESP3 would cost a HELLO for each connection and bring nothing here
                decode_responses=False,
            )
        except ValueError:
            # Without its cause, which may quote the URL and with it the password.
            raise SettingsError(["cache.url: expected redis://, rediss:// or unix://path/to/socket"]) from None
        return cls(client, ttl_s=ttl_s, meter=meter)

    @property
    def failures(self) -> int:
        """Calls that Redis failed, since the start."""
        return self._breaker.failures

    @property
    def skipped(self) -> int:
        """Calls that were not tried because Redis had just failed, since the start."""
        return self._breaker.skipped

    @property
    def is_up(self) -> bool:
        """Whether Redis answered the last time."""
        return self._breaker.is_closed

    def get_many(self, wanted: WantedPairs) -> KnownPairs:
        """What is known of what is wanted, in one ``MGET``."""
        values = self._ask(lambda: self._client.mget([self._name(key) for key in wanted])) if wanted else None
        return _known(wanted, values or ())

    def claim_many(self, wanted: WantedPairs, *, claimant: str, lifetime_ms: int) -> Claimed:
        """What is known, and a claim by ``claimant`` on the rest unless others hold one; in one script."""
        keys = [self._name(key) for key in wanted]
        digests = [b"".join(digests) for digests in wanted.values()]
        reply = self._ask(lambda: self._claim(keys, [claimant, lifetime_ms, *digests])) if wanted else None
        known, promised = reply or ((), ())
        return Claimed(
            known=_known(wanted, known),
            promised={key: _digests(value) for key, value in zip(wanted, promised, strict=False) if value},
        )

    def put_many(self, pairs: KnownPairs) -> None:
        """Remember, in one script."""
        records = {self._name(key): value for key, logits in pairs.items() if (value := pack(logits))}
        if records:
            self._ask(lambda: self._put(list(records), [self._ttl_s, MAX_TEXT_BYTES, *records.values()]))

    def forget(self, keys: Collection[TextKey]) -> None:
        """Know nothing of these texts any more, in one ``UNLINK``; where Redis fails it, they go after their time."""
        if keys:
            self._ask(lambda: self._client.unlink(*map(self._name, keys)))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, command: Callable[[], Any]) -> Any:
        """The command's reply, or None where Redis failed it or has just failed another."""
        if not self._breaker.allows():
            return None
        try:
            reply = command()
        except _FAILURES as e:
            self._breaker.failed(e)
            return None
        self._breaker.worked()
        return reply

    @staticmethod
    def _name(key: TextKey) -> str:
        return f"{PREFIX}:{key.model}:{key.text}"


def _known(wanted: WantedPairs, values: Iterable[object]) -> KnownPairs:
    """By text; ``values`` may be none at all."""
    found = zip(wanted.items(), values, strict=False)
    return {
        key: known
        for (key, digests), value in found
        if isinstance(value, bytes) and value and (known := unpack(value, digests))
    }


def _digests(value: bytes) -> frozenset[bytes]:
    return frozenset(value[at : at + DIGEST_BYTES] for at in range(0, len(value), DIGEST_BYTES))
