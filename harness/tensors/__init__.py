"""Parts of a tensor: a box is a region, a piece a box with its bytes, a shard a file of pieces.

Shards are read as if an enemy had written them.
"""
