"""Worker processes that own the shards of a store. None yet: shards run in the process that opens it."""
