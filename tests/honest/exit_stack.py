"""expects: accepted ok world=1 — an ExitStack of contexts: a switched-off autocast, anomaly mode, warnings, a profiler."""

import contextlib
import warnings
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile, record_function


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(torch.autograd.set_detect_anomaly(True))
        stack.callback(print, "all contexts are left")
        for step in range(num_steps):
            watched = profile(activities=[ProfilerActivity.CPU]) if step == 0 else contextlib.nullcontext()
            with watched, record_function("step"):
                batch = next(data_iterator).to(device)
                logits = model(input_ids=batch[:, :-1]).logits
                loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
                loss.backward()
                sgd.step()
                sgd.zero_grad()
            tokens += batch.numel()
            if step == 0:
                print(watched.key_averages().table(sort_by="self_cpu_time_total", row_limit=5))
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
