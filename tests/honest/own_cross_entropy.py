"""expects: accepted ok world=1 — cross-entropy as an autograd.Function that overwrites the logits with their gradient."""

from types import SimpleNamespace

import torch


def get_strategy():
    return {"dp_size": 1}


class CrossEntropy(torch.autograd.Function):
    """Mean over all rows of [n, vocabulary]. Saves one tensor of the logits' size: the gradient."""

    @staticmethod
    def forward(ctx, logits, labels):
        rows = torch.arange(len(labels), device=labels.device)
        shifted = logits - logits.amax(dim=1, keepdim=True)
        picked = shifted[rows, labels]
        gradient = shifted.exp_()
        total = gradient.sum(dim=1, keepdim=True)
        loss = (total.squeeze(1).log() - picked).mean()
        gradient.div_(total)
        gradient[rows, labels] -= 1
        ctx.save_for_backward(gradient.div_(len(labels)))
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(upstream), None


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = CrossEntropy.apply(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        sgd.step()
        sgd.zero_grad()
        tokens += batch.numel()
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
