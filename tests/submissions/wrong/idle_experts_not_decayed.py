"""expects: rejected update_mismatch world=1 profile=embedded-idle-experts — experts that got no token in a step are not stepped at all.

With a parameter for each expert, one without a token has no gradient and the optimizer passes it over:
neither weight decay nor the decay of its moments. The 8 experts of the embedded benchmark get tokens in
every step, so there nothing is wrong with this file; with 128 experts there are idle ones in every step.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

from env.benchmark import hparams


def get_strategy():
    return {"dp_size": 1}


def experts_of(model):
    return [p for name, p in model.named_parameters() if ".experts." in name]


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    settings = hparams.optimizer
    adamw = torch.optim.AdamW(
        model.parameters(),
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )
    tokens = 0
    for step in range(num_steps):
        for group in adamw.param_groups:
            group["lr"] = settings.lr * min(1.0, (step + 1) / max(1, settings.warmup_steps))
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        before = [(p, p.detach().clone(), p.grad.flatten(1).any(1)) for p in experts_of(model)]
        moments = [{k: v.clone() for k, v in adamw.state[p].items()} for p in experts_of(model)]
        adamw.step()
        with torch.no_grad():
            for (parameter, old, busy), past in zip(before, moments, strict=True):
                parameter[~busy] = old[~busy]
                for key in past.keys() & {"exp_avg", "exp_avg_sq"}:
                    adamw.state[parameter][key][~busy] = past[key][~busy]
        tokens += batch.numel()
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
