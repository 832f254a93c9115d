"""Nets as plainly as they can be written: primal solves with inverses, and one autograd through a training step."""

import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from lightning_edit.asking.tokenization import encode_target
from tests.gradients.plain import plain_pairs


def shuffled(net, seed=0):
    """The net with numbers that are those of no beginning, in float64."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        net.double()
        for name, part in net.named_parameters():
            noise = torch.randn(part.shape, generator=generator, dtype=torch.float64)
            part.add_(noise * (0.02 if name.endswith((".b", ".bias")) else 0.3))
    return net


def plain_net(numbers, prefix, z, place, blocks):
    """x + scale_i * max(x A B + b, 0) + shift_i, row by row."""
    for number in range(blocks):
        a, b, bias, scale, shift = (
            numbers[f"{prefix}.blocks.{number}.{n}"] for n in ("a", "b", "bias", "scale", "shift")
        )
        rows = []
        for x in z:
            inner = b.T @ (a.T @ x) + bias
            rows.append(x + scale[place] * torch.where(inner >= 0, inner, 0 * inner) + shift[place])
        z = torch.stack(rows)
    return z


def plain_delta(numbers, shape, place, blocks, h, g, everything, eta, ridge, alone=False):
    """Delta of one matrix, with the ridge of its place in the matrix that is inverted."""
    all_h, all_g = everything
    standard = [(x - y.mean(0)) / y.std(0, unbiased=True) for x, y in ((h, all_h), (g, all_g))]
    prefix = f"nets.{shape[0]}x{shape[1]}"
    changed = plain_net(numbers, prefix, torch.cat(standard, 1), place, blocks)
    key, gradient = changed[:, : shape[1]], changed[:, shape[1] :]
    eta = eta * numbers[f"{prefix}.log_eta"][place].exp()
    own = numbers[f"{prefix}.log_ridge"][place].exp()
    if alone:
        return -eta * gradient.T @ key / own
    v = -eta * (h * key).sum(1, keepdim=True) * gradient
    return v.T @ h @ torch.linalg.inv(h.T @ h + ridge * own * torch.eye(shape[1]).double())


def plain_judgement(model, base, weights, tokenizer, request, locality):
    """CE of the paraphrases and KL on the neighbors of one edit, text by text."""

    def log_p(parameters, prompt, answer):
        ids, start = encode_target(tokenizer, prompt, answer)
        logits = functional_call(model, parameters, kwargs={"input_ids": torch.tensor([ids])}).logits[0, start - 1 : -1]
        return log_softmax(logits, 1), torch.tensor(ids[start:])

    same = 0
    for prompt in request.paraphrase_prompts or (request.rewrite_prompt,):
        same = same + cross_entropy(*log_p({**base, **weights}, prompt, request.target_new))
    same = same / max(len(request.paraphrase_prompts), 1)
    kept, others = (
        0,
        [(prompt, request.target_true) for prompt in request.neighborhood_prompts] + list(request.locality),
    )
    for prompt, answer in others:
        before, after = (log_p(parameters, prompt, answer)[0] for parameters in (base, {**base, **weights}))
        kept = kept + kl_div(after, before.detach(), log_target=True, reduction="batchmean")
    return same + locality * kept / max(len(others), 1)


def plain_loss(model, tokenizer, names, numbers, blocks, turns, eta, ridge, settings, alone=False):
    """The loss of a sequence of updates, each with respect to its own Delta, in one graph."""
    base = {name: value.detach().clone() for name, value in model.named_parameters()}
    written, seen, total = {f"{name}.weight": base[f"{name}.weight"] for name in names}, {}, 0
    for turn, requests in enumerate(turns):
        with torch.no_grad():
            for name in names:
                model.get_submodule(name).weight.copy_(written[f"{name}.weight"])
        pairs = plain_pairs(model, tokenizer, requests, names, everywhere=alone)
        with torch.no_grad():
            for name in names:
                model.get_submodule(name).weight.copy_(base[f"{name}.weight"])
        places = {}
        for h, g in pairs.values():
            of_shape = seen.setdefault((g.shape[1], h.shape[1]), ([], []))
            of_shape[0].append(h)
            of_shape[1].append(g)
        for name, (h, g) in pairs.items():
            shape = (g.shape[1], h.shape[1])
            everything, place = [torch.cat(part) for part in seen[shape]], places.setdefault(shape, 0)
            places[shape] += 1
            delta = plain_delta(numbers, shape, place, blocks, h, g, everything, eta, ridge, alone)
            # GPT-2 stores its weights the other way round.
            written[f"{name}.weight"] = written[f"{name}.weight"].detach() + delta.T
            total = total + settings.penalty * delta.square().sum()
        for age in range(min(settings.reach, turn + 1)):
            for request in turns[turn - age]:
                judged = plain_judgement(model, base, written, tokenizer, request, settings.locality)
                total = total + settings.discount**age * judged
    return total
