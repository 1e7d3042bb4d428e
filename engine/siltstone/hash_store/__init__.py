"""Hash stores: records sorted by the hash of their key in sealed pages on the medium, almost nothing in memory."""
