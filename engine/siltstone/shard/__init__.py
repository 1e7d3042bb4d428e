"""A shard: its journals, how they are recovered, written, flushed and rolled. Knows no process."""
