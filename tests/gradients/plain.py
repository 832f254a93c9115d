"""UltraEdit and StableEdit as plainly as they can be written: text by text, gradients by autograd, primal solves."""

import torch
from torch.nn.functional import cross_entropy

from lightning_edit.asking.tokenization import encode_target


def plain_pairs(model, tokenizer, requests, names, mini_batch=10, everywhere=False):
    """h and g at each answer-predicting token, or at each token, text by text and batch by batch, by hooks."""
    found = {name: ([], []) for name in names}
    for start in range(0, len(requests), mini_batch):
        batch = requests[start : start + mini_batch]
        encoded = [encode_target(tokenizer, r.rewrite_prompt, r.target_new, r.separator) for r in batch]
        answers = sum(len(ids) - first for ids, first in encoded)
        for ids, first in encoded:
            seen = {}
            handles = [
                model.get_submodule(name).register_forward_hook(
                    lambda _, args, output, name=name, seen=seen: seen.update({name: (args[0], output)})
                )
                for name in names
            ]
            with torch.enable_grad():
                logits = model(input_ids=torch.tensor([ids])).logits[0]
                loss = cross_entropy(logits[first - 1 : -1], torch.tensor(ids[first:]), reduction="sum") / answers
                gradients = torch.autograd.grad(loss, [seen[name][1] for name in names])
            for handle in handles:
                handle.remove()
            for name, gradient in zip(names, gradients, strict=True):
                h = seen[name][0].detach().reshape(-1, seen[name][0].shape[-1])
                g = gradient.reshape(-1, gradient.shape[-1])
                taken = slice(0 if everywhere else first - 1, -1)
                found[name][0].append(h[taken].double())
                found[name][1].append(g[taken].double())
    return {name: (torch.cat(h), torch.cat(g)) for name, (h, g) in found.items()}


def plain_residuals(h, g, all_h, all_g, eta, whitened=False, floor=1e-6, product=False):
    """v of some tokens, with the statistics of all tokens so far at all matrices of the shape."""

    def standard(x, everything):
        return (x - everything.mean(0)) / everything.std(0, unbiased=True)

    key, gradient = standard(h, all_h), standard(g, all_g)
    n, d_out = all_g.shape
    if whitened and n > d_out + 1:
        centered = all_g - all_g.mean(0)
        covariance = centered.T @ centered / (n - d_out - 1)
        values, vectors = torch.linalg.eigh(covariance)
        gradient = (g - all_g.mean(0)) @ vectors @ torch.diag(values.clamp(min=floor) ** -0.5) @ vectors.T
    lengths = (h * key).sum(1) if product else key.square().sum(1)
    return -eta * lengths[:, None] * gradient


def primal(h, v, ridge):
    """V^T H (H^T H + ridge I)^-1 with the inverse written out."""
    return v.T @ h @ torch.linalg.inv(h.T @ h + ridge * torch.eye(h.shape[1], dtype=h.dtype))
