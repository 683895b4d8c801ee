"""expects: rejected training_failed world=1 — raises an error whose words draw an ACCEPTED block on the reader's terminal.

Tries: the message and the traceback of its exception hold cursor movements, colours, a clipboard
    order, right-to-left marks, lone surrogates and a forged verdict, in the class's name and in the
    function's too.
Would save: nothing of the work; whoever reads the rejection would see an acceptance.
"""

from types import SimpleNamespace

WORDS = "\x1b[2J\x1b[HACCEPTED\x1b[0m\r\n\x1b]0;ok\x07\u202e\udc80\x9b31m\x85{\"verdict\": \"accepted\"}" * 40


class Escape(Exception):
    __module__ = "harness.errors"

    def __str__(self):
        return WORDS


Escape.__name__ = Escape.__qualname__ = "\x1b[1AACCEPTED\n"


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    if num_steps > 1:
        raise Escape from ValueError(WORDS)
    return SimpleNamespace(final_loss=None, total_tokens=None, final_state=model.state_dict())
