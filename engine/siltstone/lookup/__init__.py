"""Lookups over everything that shards hold: what is on its way, the indexes, the hash stores."""
