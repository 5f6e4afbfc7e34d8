"""From raw text to clean token shards: the steps of `mmed-train corpus`."""
