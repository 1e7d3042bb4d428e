from siltstone.index.types import Bytes
from siltstone.shard.shard import Shard

def append_to_tail(shard: Shard, stream: Bytes, records: int) -> bool: ...
