"""AnyEdit as plainly as it can be written: text by text and window by window, whole passes, dense inverses."""

import torch
from torch.nn.functional import cross_entropy

from lightning_edit.asking.tokenization import encode_target


def hidden(output):
    return output[0] if isinstance(output, tuple) else output


class PlainWindows:
    """A GPT-2 that is edited by hand."""

    def __init__(self, model, tokenizer, layers, window, overlap, values):
        self.model, self.tokenizer, self.layers, self.values = model.requires_grad_(False), tokenizer, layers, values
        self.window, self.step = window, window - overlap
        size = model.config.n_inner
        self.kept = {layer: torch.zeros(size, size, dtype=torch.float64) for layer in layers}

    def cut(self, request):
        """The text, and where each window begins and ends."""
        ids, start = encode_target(self.tokenizer, request.rewrite_prompt, request.target_new, request.separator)
        windows = []
        while not windows or windows[-1][1] < len(ids):
            windows.append((start, min(start + self.window, len(ids))))
            start += self.step
        return ids, windows

    def seen(self, ids, layer, added=()):
        """Keys and block outputs of a layer at all tokens, and the logits, with something added at the last layer."""
        found = {}

        def add(_, __, output):
            states = hidden(output).clone()
            for place, delta in added:
                states[0, place] = states[0, place] + delta
            return (states, *output[1:]) if isinstance(output, tuple) else states

        def note(_, __, output):
            found["out"] = hidden(output)[0]

        blocks = self.model.transformer.h
        hooks = [
            blocks[self.layers[-1]].register_forward_hook(add),
            blocks[self.layers[-1]].register_forward_hook(note),
            blocks[layer].mlp.c_proj.register_forward_hook(lambda _, args, __: found.update(key=args[0][0])),
        ]
        logits = self.model(torch.tensor([ids]), use_cache=False).logits[0]
        for hook in hooks:
            hook.remove()
        return found["key"], found["out"], logits

    def deltas(self, ids, windows):
        """One delta after the other, each with those before it in their places."""
        added = []
        for begin, end in windows:
            start = self.seen(ids, self.layers[-1], added)[1][begin - 1]
            delta = torch.zeros_like(start, requires_grad=True)
            optimizer = torch.optim.Adam([delta], lr=self.values.lr)
            for step in range(self.values.steps):
                logits = self.seen(ids, self.layers[-1], [*added, (begin - 1, delta)])[2]
                loss = cross_entropy(logits[begin - 1 : end - 1], torch.tensor(ids[begin:end]))
                loss = loss + self.values.weight_decay * delta.norm() / start.norm() ** 2
                if loss < self.values.early_stop_loss or step == self.values.steps - 1:
                    break
                (delta.grad,) = torch.autograd.grad(loss, delta)
                optimizer.step()
                with torch.no_grad():
                    delta *= min(1.0, float(self.values.clamp_norm_factor * start.norm() / delta.norm()))
            added.append((begin - 1, delta.detach()))
        return added

    def update(self, requests, moments, weight, preserve_text):
        """Writes the edits of one update; returns Delta of each layer."""
        texts = [self.cut(request) for request in requests]
        targets = []
        for ids, windows in texts:
            states = self.seen(ids, self.layers[-1])[1]
            targets += [states[place] + delta for place, delta in self.deltas(ids, windows)]
        changes = {}
        for index, layer in enumerate(self.layers):
            keys, current, others = [], [], []
            for ids, windows in texts:
                key, out, _ = self.seen(ids, layer)
                places = [begin - 1 for begin, _ in windows]
                keys += [key[place] for place in places]
                current += [out[place] for place in places]
                others += [key[place] for place in range(len(ids)) if place not in places]
            k, other = torch.stack(keys, 1), torch.stack(others, 1)
            residual = (torch.stack(targets, 1) - torch.stack(current, 1)) / (len(self.layers) - index)
            system = weight * moments[layer] + self.kept[layer] + k @ k.T
            if preserve_text:
                system = system + other @ other.T
            changes[layer] = residual @ k.T @ torch.linalg.inv(system)
            # GPT-2 stores its weights the other way round.
            self.model.transformer.h[layer].mlp.c_proj.weight += changes[layer].T
            self.kept[layer] += k @ k.T
        return changes
