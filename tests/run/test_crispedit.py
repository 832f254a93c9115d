"""CrispEdit against a plain loop with dense float64 algebra; sequences that are resumed, and undone."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from lightning_edit import CrispEdit, EditError, SecondMomentSettings
from lightning_edit.datamodules import TinyWorld
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.models.decoder import find_decoder
from lightning_edit.run.methods.fine_tuning import encode_answer
from lightning_edit.run.methods.projected_training import ProjectedAdam
from lightning_edit.solvers.projection import OF_EDITS, OF_TEXT, Projection
from lightning_edit.storage.checkpoints.checkpoint_file import checkpoints
from lightning_edit.tiny import World
from lightning_edit.updates.undo import change_updates
from tests.small_models import make_gpt2, make_llama
from tests.small_runs import Refuse, Requests, fit
from tests.solvers.cases import moment_of, random

TOKENS = 200


def crisp(**changes):
    settings = {"layers": [0], "lr": 0.002, "epochs": 2, "mini_batch": 2, "early_stop_loss": 0.0, "dtype": "float64"}
    settings |= {"edits_per_update": 2, "second_moment": SecondMomentSettings(tokens=TOKENS, length=12)}
    return CrispEdit("tiny", **{**settings, **changes})


def plain_mask(a, b, energy):
    """M entry by entry: the largest products, until their sum has the share, are taken; ties are too."""
    products = sorted((float(x * y) for x in a for y in b), reverse=True)
    total, reached = 0.0, 0.0
    for total_of in products:
        total += total_of
    for value in products:
        reached += value
        if reached >= energy * total:
            break
    return torch.tensor([[float(x * y) < value for x in a] for y in b])


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.99])
def test_a_projection_takes_away_what_both_moments_feel(energy):
    keys, outputs, change = moment_of(7, 1), moment_of(4, 2), random(4, 7, seed=3)
    (a, u), (b, v) = torch.linalg.eigh(keys), torch.linalg.eigh(outputs)
    expected = v @ ((v.T @ change @ u) * plain_mask(a, b, energy)) @ u.T
    projection = Projection.of(keys, outputs, energy)
    assert float((projection(change) - expected).norm()) <= 1e-9 * float(expected.norm())
    assert torch.allclose(projection(projection(change)), projection(change))
    assert 0 < projection.free_share < 1
    # With B = I it is the null space of keys.
    null = Projection.of(keys, torch.eye(4).double(), energy)
    free = u[:, null.free[0]]
    assert bool((null.free == null.free[0]).all())
    assert torch.allclose(null(change), change @ free @ free.T)


def test_a_projection_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match=r"for a share of 1 of the energy. Lower `model.energy`"):
        Projection.of(torch.eye(3).double(), torch.eye(2).double(), 1.0)
    with pytest.raises(ValueError, match="are 0 or not finite"):
        Projection.of(torch.eye(3).double(), torch.zeros(2, 2).double(), 0.5)


@pytest.mark.parametrize("make_model", [make_gpt2, make_llama])
def test_steps_are_adam_on_projected_gradients_and_momentum(make_model):
    model = make_model()
    decoder = find_decoder(model)
    old, new = (Projection.of(moment_of(24, seed), moment_of(16, seed), 0.8) for seed in (1, 2))
    weight, module = decoder.weight(1).detach().clone(), decoder.down_projection(1)
    optimizer, m, v = ProjectedAdam(decoder, {1: old}, 0.01), torch.zeros(16, 24).double(), torch.zeros(16, 24).double()
    for step in range(1, 5):
        gradient = random(16, 24, seed=step)
        module.weight.grad = (gradient.T if make_model is make_gpt2 else gradient).contiguous()
        optimizer.step()
        gradient = (old if step < 3 else new)(gradient)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        weight = weight - 0.01 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
        if step == 2:
            optimizer.project_by({1: new})
            m = new(m)
    assert float((decoder.weight(1).detach() - weight).norm()) <= 1e-9 * float(weight.norm())


class Plain:
    """CrispEdit on layer 0, text by text."""

    def __init__(self, rows, end=False):
        self.model, self.tokenizer = load_model("tiny", "float64").requires_grad_(False), load_tokenizer("tiny")
        self.module, self.rows, self.seen = find_decoder(self.model).down_projection(0), rows, {}
        self.module.register_forward_hook(self.look)
        self.weight = self.module.weight.requires_grad_(True)
        self.counted, self.reference = self.sums(rows), self.weight.detach().clone()
        self.edits = [0.0, 0.0, 0, 0]
        self.parts = ()

    def look(self, _, args, output):
        self.seen.update(key=args[0].detach(), output=output)

    def sums(self, rows):
        sums = [0.0, 0.0, 0, 0]
        for row in rows:
            logits = self.model(torch.tensor([row])).logits[0]
            loss = cross_entropy(logits[:-1], torch.tensor(row[1:]), reduction="sum")
            (g,) = torch.autograd.grad(loss, self.seen["output"])
            k, g = (x.reshape(len(row), -1) for x in (self.seen["key"], g))
            sums = [one + more for one, more in zip(sums, (k.T @ k, g.T @ g, len(row), len(row) - 1), strict=True)]
        return sums

    def decompose(self, energy):
        keys, outputs, *tokens = (one + other for one, other in zip(self.counted, self.edits, strict=True))
        (a, u), (b, v) = torch.linalg.eigh(keys / tokens[0]), torch.linalg.eigh(outputs / tokens[1])
        products = b.clamp(min=0)[:, None] * a.clamp(min=0)
        ordered = products.flatten().sort(descending=True).values
        value = ordered[int((ordered.cumsum(0) < energy * ordered.sum()).sum())]
        self.parts = u, v, products < value

    def project(self, gradient):
        u, v, free = self.parts
        # This model stores its weight transposed.
        return (v @ ((v.T @ gradient.T @ u) * free) @ u.T).T

    def train(self, requests, epochs, lr, mini_batch, energy, refresh):
        m, v, step = torch.zeros_like(self.weight), torch.zeros_like(self.weight), 0
        refreshed = self.refresh(refresh)
        self.decompose(energy)
        for _ in range(epochs):
            for first in range(0, len(requests), mini_batch):
                gradient, step = self.project(self.gradient(requests[first : first + mini_batch])), step + 1
                m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
                self.weight.data -= lr * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
            if self.refresh(refresh):
                self.decompose(energy)
                m, refreshed = self.project(m), True
        edits = self.sums([encode_answer(self.tokenizer, request, False)[0] for request in requests])
        self.edits = [one + other for one, other in zip(self.edits, edits, strict=True)]
        return refreshed

    def refresh(self, share):
        weight = self.weight.detach()
        if float((weight - self.reference).norm() / self.reference.norm()) <= share:
            return False
        self.counted, self.reference = self.sums(self.rows), weight.clone()
        return True

    def gradient(self, requests):
        loss = 0.0
        for request in requests:
            ids, start = encode_answer(self.tokenizer, request, False)
            log_probs = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
            loss -= sum(log_probs[i - 1, ids[i]] for i in range(start, len(ids))) / (len(ids) - start) / len(requests)
        return torch.autograd.grad(loss, self.weight)[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of three updates whose weight drifts so far that the moments are counted again, and its folder."""
    made = crisp(refresh=0.03)
    return made, fit(tmp_path_factory.mktemp("whole"), made, TinyWorld(edits=6))


@pytest.mark.slow
def test_a_sequence_equals_a_plain_loop(whole):
    made, _ = whole
    plain, requests = Plain(made.loop.editor.rows), made.requests
    refreshed = [plain.train(requests[i : i + 2], 2, 0.002, 2, 0.99, 0.03) for i in (0, 2, 4)]
    assert any(refreshed)
    found = made.decoder.down_projection(0).weight.detach()
    assert float((found - plain.weight.detach()).abs().max()) <= 1e-9
    remembered = made.loop.editor.anchored[0]
    assert set(remembered) == OF_EDITS | OF_TEXT
    for name, expected in zip(("keys", "outputs"), plain.edits, strict=False):
        assert float((remembered[name] - expected).norm()) <= 1e-9 * float(expected.norm())
    assert [float(remembered[f"{name}_tokens"]) for name in ("key", "output")] == plain.edits[2:]


def same(first, second):
    assert torch.equal(first.decoder.weight(0), second.decoder.weight(0))
    memories = [made.loop.editor.anchored[0] for made in (first, second)]
    assert all(torch.equal(value, memories[1][name]) for name, value in memories[0].items())


def test_a_resumed_run_is_the_run_that_was_never_stopped(whole):
    made, folder = whole
    before = checkpoints(folder)[1]
    assert before.name == "update-000002.ckpt"
    again = crisp(refresh=0.03)
    fit(folder.parent, again, TinyWorld(edits=6), ckpt_path=str(before))
    assert again.loop.updates_written == 3
    same(made, again)


@pytest.mark.slow
def test_a_refused_update_is_undone_with_what_is_remembered(tmp_path):
    refused, short = crisp(refresh=0.03), crisp(refresh=0.03)
    with pytest.warns(UserWarning, match="undone"):
        fit(tmp_path, refused, TinyWorld(edits=6), Refuse(2))
    fit(tmp_path, short, Requests(TinyWorld(edits=6).requests[:2]))
    same(refused, short)


def test_updates_can_be_removed_one_by_one(whole):
    _, folder = whole
    change = change_updates(folder, "remove", [3])
    assert change.exact and change.checked and change.edits == 4


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"energy": 0.0}, "protects nothing, which is plain fine-tuning"),
        ({"second_moment": SecondMomentSettings(source="none")}, r"with `second_moment.source: none` no text is read"),
        ({"second_moment": SecondMomentSettings(preserve=["neighbors"])}, "put such texts into `data.preservation`"),
        ({"refresh": 0.0}, "refresh"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, told):
    with pytest.raises(EditError, match=told):
        crisp(**settings)


def test_experts_and_replaced_edits_are_refused(tmp_path):
    with pytest.raises(EditError, match="or use `EditingModule` with `solver: OutputMEMIT`"):
        fit(tmp_path, CrispEdit("tiny-moe", layers=[1]), TinyWorld(edits=2))
    twice = TinyWorld(edits=1).requests * 2
    twice[1] = twice[1].__class__(**{**vars(twice[1]), "target_new": World.generate().records(2)[1]["target_new"]})
    with pytest.raises(EditError, match="none can replace another"):
        fit(tmp_path, crisp(), Requests(twice))


def test_training_that_diverges_is_refused_and_undone(tmp_path):
    made = crisp(lr=1e200)
    with pytest.raises(EditError, match=r"Lower `model\.lr`"):
        fit(tmp_path, made, TinyWorld(edits=2))
    assert torch.equal(made.decoder.weight(0), made.weights.base[0])
