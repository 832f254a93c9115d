"""Causal tracing by its definition: a pass over the whole text for every restoration, with hooks and no cache."""

from contextlib import ExitStack

import torch

from lightning_edit.tracing.noise import draw_noise


@torch.no_grad()
def probability(model, ids, start):
    """Of all tokens from ``start`` on."""
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double()
    log_probs = logits.log_softmax(-1)
    return sum(log_probs[i - 1, ids[i]] for i in range(start, len(ids))).exp()


def hook(module, change):
    def changed(_, __, output):
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    return module.register_forward_hook(changed)


def recorded(model, modules, ids, start):
    """What leaves each module in the clean run, as ``(tokens, width)``, and the probability of the answer."""
    states = {}
    with ExitStack() as stack:
        for key, module in modules.items():

            def keep(state, key=key):
                states[key] = state.reshape(len(ids), -1).clone()
                return state

            stack.enter_context(hook(module, keep))
        return states, float(probability(model, ids, start))


def corrupted(model, ids, start, first, noise, restore=()):
    """The mean probability with noise from position ``first`` on, and some outputs put back.

    Args:
        restore: Triples of module, position, and what takes the place of its output there.
    """
    total = 0.0
    for sample in noise:

        def disturb(embeddings, sample=sample):
            embeddings = embeddings.clone()
            embeddings[0, first : first + len(sample)] += sample
            return embeddings

        with ExitStack() as stack:
            stack.enter_context(hook(model.get_input_embeddings(), disturb))
            for module, position, value in restore:

                def put(state, position=position, value=value):
                    state = state.clone()
                    state.reshape(-1, state.shape[-1])[position] = value
                    return state

                stack.enter_context(hook(module, put))
            total += float(probability(model, ids, start))
    return total / len(noise)


def trace(model, modules, text, scale, samples, seed, windows):
    """The clean and the corrupted probability, and ``(tokens, layers)`` for the modules in windows of layers.

    Args:
        modules: One for each layer.
        text: The encoded prompt with its answer.
        windows: For each layer those that are restored together.
    """
    ids, start = list(text.ids), text.target_start
    width = model.get_input_embeddings().weight.shape[1]
    noise = draw_noise(text, samples, width, scale, seed)
    states, clean = recorded(model, modules, ids, start)
    low = corrupted(model, ids, start, text.subject_first, noise)
    restored = torch.tensor(
        [
            [
                corrupted(
                    model,
                    ids,
                    start,
                    text.subject_first,
                    noise,
                    [(modules[layer], position, states[layer][position]) for layer in window],
                )
                for window in windows
            ]
            for position in range(start)
        ],
        dtype=torch.float64,
    )
    return clean, low, restored
