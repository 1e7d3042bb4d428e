"""The log store of a shard: the index in memory over the entries of its journals."""
