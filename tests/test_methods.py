"""Whole methods over several updates and layers, against a loop of plain forward passes and dense float64 algebra."""

from dataclasses import replace

import pytest
import torch

from lightning_edit import MEMIT, REVIVE, SPHERE, AlphaEdit, EvoEdit, LyapLock, SimIE
from lightning_edit.asking.tokenization import encode_subject
from lightning_edit.solvers import PreviousKeys
from lightning_edit.values.vectors import GIVEN_UP
from tests.histories import LAYERS, MAKERS, PAIRS, make_editor
from tests.solvers.cases import moment_of
from tests.solvers.test_spectral import directions

TEMPLATES = {"{}": 0.5, "I think. {}": 0.5}
W, LAST = 3.0, LAYERS[-1]


class Plain:
    """A copy of a model that is edited by hand."""

    def __init__(self, editor, maker):
        self.model, self.tokenizer, self.editor = maker().eval(), editor.tokenizer, editor
        self.base = {layer: self.weight(layer).clone() for layer in LAYERS}
        size = self.base[0].shape[1]
        self.kept = {layer: torch.zeros(size, size).double() for layer in LAYERS}

    def module(self, layer):
        name = self.editor.weights.decoder.names[layer]
        return self.model.get_submodule(name)

    def block(self, layer):
        return self.model.get_submodule(self.editor.weights.decoder.names[layer].rpartition(".mlp")[0])

    def weight(self, layer):
        weight = self.module(layer).weight.data
        return weight.T if type(self.module(layer)).__name__ == "Conv1D" else weight

    def seen(self, requests, template, layer, inject=None):
        """Key, MLP output and block output at each subject's last token."""
        keys, outputs, blocks = [], [], []
        for i, request in enumerate(requests):
            text = encode_subject(self.tokenizer, template.replace("{}", request.prompt), request.subject)
            place = text.subject_last
            found = {}

            def change(_, __, output, place=place, i=i):
                hidden = output[0] if isinstance(output, tuple) else output
                hidden[0, place] = inject[1][i]

            hooks = [
                self.module(layer).register_forward_hook(
                    lambda _, args, output, found=found: found.update(key=args[0][0], out=output[0])
                ),
                self.block(layer).register_forward_hook(
                    lambda _, __, output, found=found: found.update(
                        block=(output[0] if isinstance(output, tuple) else output)[0].clone()
                    )
                ),
            ]
            hooks += [self.block(inject[0]).register_forward_hook(change)] if inject else []
            with torch.no_grad():
                self.model(torch.tensor([text.ids]), use_cache=False)
            for hook in hooks:
                hook.remove()
            keys.append(found["key"].reshape(-1, self.base[0].shape[1])[place])
            outputs.append(found["out"].reshape(-1, self.base[0].shape[0])[place])
            blocks.append(found["block"].reshape(-1, self.base[0].shape[0])[place])
        return torch.stack(keys, 1), torch.stack(outputs, 1), torch.stack(blocks, 1)

    def keys(self, requests, layer):
        return sum(share * self.seen(requests, text, layer)[0] for text, share in TEMPLATES.items())

    def tokens(self, requests, layer):
        """The keys of all tokens of prompt and answer."""
        found = []
        hook = self.module(layer).register_forward_hook(
            lambda _, args, __: found.append(args[0].reshape(-1, args[0].shape[-1]))
        )
        for request in requests:
            text = encode_subject(self.tokenizer, request.prompt, request.subject, request.target_new)
            with torch.no_grad():
                self.model(torch.tensor([text.ids]), use_cache=False)
        hook.remove()
        return torch.cat(found).T

    def residual(self, requests, z, index, layer):
        """The share of what is missing at the highest layer, and the keys."""
        keys = self.keys(requests, layer)
        return keys, (z - self.seen(requests, "{}", LAST)[2]) / (len(LAYERS) - index)

    def memit(self, requests, z, moments, finish=lambda delta, layer, plain: delta, targets=None, preserve=True):
        for index, layer in enumerate(LAYERS):
            keys, residual = self.residual(requests, z, index, layer)
            if targets is not None:
                residual = targets[layer] - self.seen(requests, "{}", layer)[2]
            system = W * moments[layer] + self.kept[layer] + keys @ keys.T
            self.weight(layer).add_(finish(residual @ keys.T @ torch.linalg.inv(system), layer, self))
            if preserve:
                self.kept[layer] += keys @ keys.T


def lyaplock(plain, moments, alpha=0.5):
    state = {layer: {"targets": 0 * plain.base[layer]} for layer in LAYERS}

    def update(requests, z):
        for index, layer in enumerate(LAYERS):
            own, weight, moment, kept = state[layer], plain.weight(layer), moments[layer], plain.kept[layer]
            keys, residual = plain.residual(requests, z, index, layer)
            pressure = own["queue"] / own["bound"] ** 0.5 if "bound" in own else 1.0
            right = pressure * W * (plain.base[layer] - weight) @ moment + own["targets"] - weight @ kept
            system = keys @ keys.T + pressure * W * moment + kept
            weight.add_((residual @ keys.T + right) @ torch.linalg.inv(system))
            kept += keys @ keys.T
            own["targets"] = own["targets"] + weight @ keys @ keys.T
            moved = weight - plain.base[layer]
            loss = float(torch.trace(moved @ moment @ moved.T))
            own.setdefault("bound", alpha * loss)
            root = own["bound"] ** 0.5
            own["queue"] = max(own.get("queue", root) + (loss - own["bound"]) / root, root)

    return update


def evoedit(plain, moments, threshold=0.1, l2=4.0):
    free = {}
    for layer in LAYERS:
        values, vectors = torch.linalg.eigh(moments[layer])
        free[layer] = vectors[:, values < threshold] @ vectors[:, values < threshold].T

    def update(requests, z):
        for index, layer in enumerate(LAYERS):
            keys, residual = plain.residual(requests, z, index, layer)
            inside = free[layer] @ keys
            system = keys.T @ inside + l2 * torch.eye(keys.shape[1])
            plain.weight(layer).add_(residual @ torch.linalg.inv(system) @ inside.T)
            basis = torch.linalg.qr(inside).Q
            free[layer] = free[layer] - basis @ basis.T

    return update


def simie(plain, moments, lam=5.0):
    every = {layer: lam * torch.eye(plain.base[layer].shape[1]).double() for layer in LAYERS}

    def update(requests, z):
        before = {layer: plain.weight(layer).clone() for layer in LAYERS}
        for layer in LAYERS:
            plain.weight(layer).copy_(plain.base[layer])
        tokens = {layer: plain.tokens(requests, layer) for layer in LAYERS}
        plain.memit(requests, z, moments, preserve=False)
        for layer in LAYERS:
            own = tokens[layer] @ tokens[layer].T
            every[layer] += own
            change = (plain.weight(layer) - before[layer]) @ own @ torch.linalg.inv(every[layer])
            plain.weight(layer).copy_(before[layer] + change)

    return update


def replay(plain, moments):
    def update(requests, z):
        targets = {0: z, 1: plain.seen(requests, "{}", 1, inject=(0, z.T))[2]}
        plain.memit(requests, z, moments, targets=targets)

    return update


def sphere(plain, moments):
    def finish(delta, layer, plain):
        rows = plain.weight(layer) / plain.weight(layer).norm(dim=1, keepdim=True)
        right = directions(rows, 0.5)[1]
        return delta - 0.5 * delta @ right @ right.T

    return lambda requests, z: plain.memit(requests, z, moments, finish)


def revive(plain, moments):
    def finish(delta, layer, plain):
        left, right = directions(plain.base[layer], 0.3)
        return delta - left @ left.T @ delta - (delta - left @ left.T @ delta) @ right @ right.T

    return lambda requests, z: plain.memit(requests, z, moments, finish)


MEMIT_KEPT = {"solver": MEMIT(W), "previous_keys": {}}
METHODS = {
    "LyapLock": ({**MEMIT_KEPT, "anchor": LyapLock(0.5)}, {}, lyaplock),
    "EvoEdit": ({"solver": AlphaEdit(0.1, ridge=4.0), "anchor": EvoEdit()}, {}, evoedit),
    "SimIE": ({"solver": MEMIT(W), "anchor": SimIE(5.0)}, {"weights": "unedited"}, simie),
    "replay": ({**MEMIT_KEPT, "distribution": "replay"}, {}, replay),
    "SPHERE": ({**MEMIT_KEPT, "post_processing": [SPHERE()]}, {}, sphere),
    "REVIVE": ({**MEMIT_KEPT, "post_processing": [REVIVE(0.3)]}, {}, revive),
}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("name", METHODS)
def test_three_updates_of_two_layers_are_those_of_the_plain_loop(name, maker):
    changes, values, method = METHODS[name]
    editor = make_editor(maker(), **changes)
    editor.values = replace(editor.values, **values)
    editor.moments = {layer: moment_of(moment.shape[0], layer) for layer, moment in editor.moments.items()}
    plain = Plain(editor, maker)
    update = method(plain, editor.moments)
    for requests in PAIRS:
        z = editor.with_norm(requests, editor.find_values(requests)).z
        editor.write(requests, z)
        update(requests, z.T)
        for layer in LAYERS:
            expected = plain.weight(layer) - plain.base[layer]
            actual = editor.weights.added[layer].dense()
            assert float((actual - expected).norm()) <= 1e-9 * float(expected.norm()), (name, layer)


@pytest.mark.parametrize("maker", MAKERS)
def test_values_with_a_norm_anchor_are_those_of_the_plain_formula(maker):
    editor, requests = make_editor(maker()), [request for pair in PAIRS for request in pair]
    plain, free = Plain(editor, maker), editor.find_values(requests)
    outputs = plain.seen(requests, "{}", LAST)[1].T
    norms = (outputs + free.z - free.z0).norm(dim=1)
    mu = float(norms.sort().values[2]) / 1.9  # larger ones than the third are given up, or nearly
    editor.values = replace(editor.values, norm_anchor=mu)
    found = editor.with_norm(requests, editor.find_values(requests))
    assert torch.equal(found.finite, norms <= 2 * mu)
    assert set(found.left_out().values()) == {GIVEN_UP}
    for i, wanted in enumerate(outputs + free.z - free.z0):
        delta = 0 * wanted if wanted.norm() > 2 * mu else wanted * mu / wanted.norm() - outputs[i]
        assert torch.allclose(found.z[i], free.z0[i] + delta, rtol=1e-9, atol=1e-11)
    assert 0 < sum(float(norm) > 2 * mu for norm in norms) < len(norms)


def test_values_on_the_unedited_weights_do_not_know_what_was_written():
    editor = make_editor(MAKERS[0].values[0]())
    editor.values = replace(editor.values, weights="unedited")
    before = editor.find_values(PAIRS[1])
    editor.write(PAIRS[0], editor.find_values(PAIRS[0]).z)
    weight = editor.weights.decoder.weight(0).clone()
    assert torch.equal(editor.find_values(PAIRS[1]).z, before.z)
    assert torch.equal(editor.weights.decoder.weight(0), weight)
    editor.values = replace(editor.values, weights="current")
    assert not torch.equal(editor.find_values(PAIRS[1]).z, before.z)


def test_an_update_that_fails_leaves_what_an_anchor_remembers():
    editor = make_editor(MAKERS[0].values[0](), solver=MEMIT(W), previous_keys={}, anchor=LyapLock())
    editor.write(PAIRS[0], editor.find_values(PAIRS[0]).z)
    remembered, added = editor.anchored, editor.weights.added[1].dense()
    editor.previous_keys = editor.previous_keys | {1: PreviousKeys(-1e9 * torch.eye(24, dtype=torch.float64))}
    with pytest.raises(Exception, match=r"singular|depend on each other|rank"):
        editor.write(PAIRS[1], editor.find_values(PAIRS[1]).z)
    assert editor.anchored is remembered
    assert torch.equal(editor.weights.added[1].dense(), added)
