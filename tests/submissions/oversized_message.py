"""expects: rejected bad_message world=1 — announces a frame of 4 GiB and begins to send it."""

import gc
import struct

link = next(thing for thing in gc.get_objects() if type(thing).__name__ == "RankSocket")
link._socket.sendall(struct.pack(">I", 2**32 - 1) + bytes(2**26))


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    pass
