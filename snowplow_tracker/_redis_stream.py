"""What is done to a Redis stream of payloads, each in one indivisible step."""

from typing import Any, List, NamedTuple, Sequence, Tuple, Union

from ._redis_connection import RedisConnection

__all__ = ["Entry", "RedisStream", "StreamId"]

# A client that decodes responses gives text, others bytes; what came from a client goes back to it as it came.
StreamId = Union[bytes, str]

# Lua passes no more than some thousands of values to one call.
_MOST_IDS = 1_000


class Entry(NamedTuple):
    """A payload in a stream.

    Attributes:
        id: Its place in the order of arrival.
        text: The payload as JSON.
    """

    id: StreamId
    text: Union[bytes, str]


class RedisStream:
    """A stream with a consumer group, as one consumer sees it.

    An entry *waits* until a consumer takes it. Then it is *pending* for this consumer, until a consumer forgets it, or
    this one gives it back, or its lease ends. What comes back becomes pending for a consumer by the name of `returned`,
    which nobody is: Redis keeps its entries in the order of their ids, and whoever takes entries begins with those.

    Each method is one script, so it happens as a whole or not at all, in one round trip; those with `ids`
    take one for each thousand. There is no state here, so any thread may call any method. Each raises what
    `RedisConnection.run` raises.
    """

    def __init__(self, connection: RedisConnection, key: str, consumer: str) -> None:
        self._connection = connection
        self._key = key
        self._consumer = consumer

    def add(self, texts: Sequence[str], capacity: int) -> bool:
        """Append entries.

        Args:
            texts: Payloads as JSON.
            capacity: Nothing is appended if so many entries wait already; -1 for no limit.

        Returns:
            False if there is no room.
        """
        return bool(self._run(_ADD, capacity, *texts))

    def count(self) -> int:
        """Count the entries that wait. What it takes does not depend on their number."""
        return int(self._run(_COUNT))

    def count_with_elsewhere(self) -> Tuple[int, int]:
        """Count the entries that wait, and those that are pending for other consumers."""
        waiting, elsewhere = self._run(_COUNT_WITH_ELSEWHERE, self._consumer)
        return int(waiting), int(elsewhere)

    def take(self, limit: int, max_bytes: int, lease_milliseconds: int, ends_leases: bool) -> Tuple[List[Entry], int]:
        """Make waiting entries pending for this consumer: those that came back, then the others, the oldest first.

        Args:
            limit: How many at the most.
            max_bytes: What they may have together; a larger one comes alone.
            lease_milliseconds: For how long a consumer may keep an entry.
            ends_leases: Whether to have entries come back first that were kept for longer, and to delete consumers that
                have none and were not seen for as long.

        Returns:
            The entries, and how many still wait.
        """
        waiting, found = self._run(_TAKE, self._consumer, limit, max_bytes, lease_milliseconds, int(ends_leases))
        return [Entry(*pair) for pair in zip(found[::2], found[1::2])], int(waiting)

    def renew(self, ids: Sequence[StreamId]) -> None:
        """Begin the lease of entries anew, as far as they are pending for this consumer."""
        for part in _parts(ids):
            self._run(_RENEW, self._consumer, *part)

    def forget(self, ids: Sequence[StreamId]) -> None:
        """Delete entries, whichever consumer they are pending for."""
        for part in _parts(ids):
            self._run(_FORGET, *part)

    def give_back(self, ids: Sequence[StreamId]) -> Tuple[int, List[StreamId]]:
        """Have entries wait again, as far as they are pending for this consumer.

        Returns:
            How many that are, and which entries are not in the stream.
        """
        answers = [self._run(_GIVE_BACK, self._consumer, *part) for part in _parts(ids)]
        return sum(count for count, _ in answers), [id_ for _, missing in answers for id_ in missing]

    def give_back_all_but(self, ids: Sequence[StreamId]) -> None:
        """Have all entries wait again that are pending for this consumer, but for some that it knows of."""
        self._run(_GIVE_BACK_ALL_BUT, self._consumer, *ids)

    def leave(self) -> None:
        """Give everything back, and delete this consumer. It is made again when it takes entries."""
        self._run(_LEAVE, self._consumer)

    def _run(self, script: str, *args: Any) -> Any:
        return self._connection.run(script, self._key, args)


def _parts(ids: Sequence[StreamId]) -> List[Sequence[StreamId]]:
    return [ids[start : start + _MOST_IDS] for start in range(0, len(ids), _MOST_IDS)]


_COMMON = """
local key, group, returned = KEYS[1], 'senders', 'returned'

local function count_waiting()
  local count = redis.call('XLEN', key)
  if count == 0 then return 0 end
  local pending = redis.pcall('XPENDING', key, group)
  -- Somebody may have deleted the group.
  if pending.err then return count end
  count = count - pending[1]
  for _, consumer in ipairs(pending[4] or {}) do
    if consumer[1] == returned then count = count + consumer[2] end
  end
  -- What somebody else has deleted from the stream may still be pending.
  return math.max(0, count)
end

local function assign(ids, consumer)
  if #ids == 0 then return end
  local words = {'XCLAIM', key, group, consumer, 0, unpack(ids)}
  words[#words + 1] = 'JUSTID'
  redis.call(unpack(words))
end

local function own_among(ids, consumer)
  local own = {}
  for _, id in ipairs(ids) do
    -- There may be no group.
    if redis.pcall('XPENDING', key, group, id, id, 1, consumer)[1] then own[#own + 1] = id end
  end
  return own
end
"""

_ADD = (
    _COMMON
    + """
local capacity = tonumber(ARGV[1])
-- The length is at hand at once, and it is never less than what waits.
if capacity >= 0 and redis.call('XLEN', key) >= capacity and count_waiting() >= capacity then return 0 end
-- Whoever takes entries finds the group: to make one takes memory, which Redis may not have left by then.
if redis.call('EXISTS', key) == 0 then redis.call('XGROUP', 'CREATE', key, group, '0', 'MKSTREAM') end
for position = 2, #ARGV do redis.call('XADD', key, '*', 'payload', ARGV[position]) end
return 1
"""
)

_COUNT = _COMMON + "return count_waiting()"

_COUNT_WITH_ELSEWHERE = (
    _COMMON
    + """
-- There may be no group, and then no list.
local consumers, elsewhere = redis.pcall('XPENDING', key, group)[4] or {}, 0
for _, consumer in ipairs(consumers) do
  if consumer[1] ~= returned and consumer[1] ~= ARGV[1] then elsewhere = elsewhere + consumer[2] end
end
return {count_waiting(), elsewhere}
"""
)

_TAKE = (
    _COMMON
    + """
local consumer, limit, max_bytes, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local ends_leases = ARGV[5] == '1'
local batch, count, bytes, surplus = {}, 0, 0, {}

local function give_back_what_was_kept_too_long()
  local cursor = '0-0'
  repeat
    cursor = redis.call('XAUTOCLAIM', key, group, returned, lease, cursor, 'COUNT', 1000, 'JUSTID')[1]
  until cursor == '0-0'
end

local function delete_idle_consumers()
  for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', key, group)) do
    local other = {}
    for position = 1, #fields, 2 do other[fields[position]] = fields[position + 1] end
    -- Should one come back, Redis makes it again.
    if other.pending == 0 and other.idle > lease then redis.call('XGROUP', 'DELCONSUMER', key, group, other.name) end
  end
end

-- How many entries are likely to fit, by the size of those that were taken so far.
local function room()
  if count == 0 then return math.min(limit, 16) end
  return math.min(limit - count, math.max(1, math.floor((max_bytes - bytes) * count / bytes)))
end

local function put_into_batch(entries)
  for _, entry in ipairs(entries) do
    local id, text = entry[1], entry[2][2]
    if #surplus > 0 or (count > 0 and bytes + #text > max_bytes) then
      surplus[#surplus + 1] = id
    else
      batch[#batch + 1], batch[#batch + 2] = id, text
      count, bytes = count + 1, bytes + #text
    end
  end
end

local function claim(ids)
  local entries, exists = {}, {}
  for _, entry in ipairs(redis.call('XCLAIM', key, group, consumer, 0, unpack(ids))) do
    -- Redis 6.2 answers with a nil for what somebody has deleted from the stream, and keeps it pending.
    if entry then
      entries[#entries + 1] = entry
      exists[entry[1]] = true
    end
  end
  for _, id in ipairs(ids) do
    if not exists[id] then redis.call('XACK', key, group, id) end
  end
  return entries
end

local is_empty = redis.call('XLEN', key) == 0
if redis.pcall('XPENDING', key, group).err then
  if is_empty then return {0, batch} end
  redis.call('XGROUP', 'CREATE', key, group, '0')
end
if ends_leases then
  give_back_what_was_kept_too_long()
  delete_idle_consumers()
end
if is_empty then return {0, batch} end
while count < limit and #surplus == 0 do
  local ids = {}
  for _, pending in ipairs(redis.call('XPENDING', key, group, '-', '+', room(), returned)) do
    ids[#ids + 1] = pending[1]
  end
  if #ids == 0 then break end
  put_into_batch(claim(ids))
end
while count < limit and #surplus == 0 do
  local found = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', room(), 'STREAMS', key, '>')
  if not found then break end
  put_into_batch(found[1][2])
end
assign(surplus, returned)
return {count_waiting(), batch}
"""
)

_RENEW = (
    _COMMON
    + """
local consumer, ids = ARGV[1], {unpack(ARGV, 2)}
assign(own_among(ids, consumer), consumer)
"""
)

_FORGET = (
    _COMMON
    + """
redis.call('XACK', key, group, unpack(ARGV))
redis.call('XDEL', key, unpack(ARGV))
"""
)

_GIVE_BACK = (
    _COMMON
    + """
local consumer, there, missing = ARGV[1], {}, {}
for position = 2, #ARGV do
  local id = ARGV[position]
  local list = #redis.call('XRANGE', key, id, id) == 0 and missing or there
  list[#list + 1] = id
end
local own = own_among(there, consumer)
assign(own, returned)
return {#own, missing}
"""
)

_GIVE_BACK_ALL_BUT = (
    _COMMON
    + """
local consumer, known = ARGV[1], {}
for position = 2, #ARGV do known[ARGV[position]] = true end
local first = '-'
-- There may be no group, or no stream.
if redis.pcall('XPENDING', key, group).err then return end
repeat
  local pending, ids = redis.call('XPENDING', key, group, first, '+', 1000, consumer), {}
  for _, entry in ipairs(pending) do
    if not known[entry[1]] then ids[#ids + 1] = entry[1] end
    first = '(' .. entry[1]
  end
  assign(ids, returned)
until #pending < 1000
"""
)

_LEAVE = _GIVE_BACK_ALL_BUT + "redis.call('XGROUP', 'DELCONSUMER', key, group, consumer)"
