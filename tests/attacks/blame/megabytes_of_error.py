"""expects: rejected training_failed world=1 — its error is 32 MiB of lone surrogates and control characters, with a chain of causes.

Tries: a message that is too long for any frame and cannot be encoded, so that the report of the
    failure fails and the judge sees only silence.
Would save: a free retry of every run that was slow.
"""

from types import SimpleNamespace


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    if num_steps > 2:
        try:
            raise ValueError("\udc80\x00\x1b]0;" * 2**20)
        except ValueError as error:
            raise RuntimeError("\ud800\x07" * 2**24) from error
    return SimpleNamespace(final_loss=None, total_tokens=None, final_state=model.state_dict())
