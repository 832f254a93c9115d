"""One pass forward and one backward: keys and output gradients of all edited maps where answers are predicted."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_edit.distributed.process_group import agreed, in_shares, sharing
from lightning_edit.errors import EditError
from lightning_edit.models.batches import by_length, pad, tokens_of_a_pass
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.fast_ops import fast
from lightning_edit.models.finding.probe import probe_inputs
from lightning_edit.models.finding.sites import by_token, stacked
from lightning_edit.models.hooks import frozen, logits_at
from lightning_edit.models.out_of_memory import halving
from lightning_edit.models.output_gradients import MAX_LOGITS, output_watched
from lightning_edit.progress import Report, silent

MAX_TOKENS = 8192
# Token ids of a prompt with its answer, and where the answer begins.
Answered = tuple[Sequence[int], int]
# For each place h (n, d_in) and g (n, d_out).
AtTokens = dict[int, tuple[Tensor, Tensor]]


def gradients_at_answers(
    decoder: Decoder,
    texts: Sequence[Answered],
    places: Sequence[int],
    report: Report = silent,
    everywhere: bool = False,
) -> AtTokens:
    """What enters the edited maps at every token that predicts one of an answer, and the gradient of what leaves them.

    The gradient is that of the answers' negative log-likelihood in nats, added up over the tokens of each text. Only
    activations have gradients, down to the lowest of the maps.

    Args:
        decoder: The model.
        texts: The texts with their answers, the same in every process.
        places: The edited places.
        report: Called with the number of texts done by this process.
        everywhere: Whether to take all tokens but the last of each text, not only those that predict the answer.

    Returns:
        For each place keys ``(n, d_in)`` and gradients ``(n, d_out)`` in float64, a row for each token, text by text.

    Raises:
        EditError: If no gradient comes back to a map.
    """
    if sharing(decoder.model) == 1:
        found = _of_share(decoder, texts, places, report, everywhere)
        agreed([tensor for pair in found.values() for tensor in pair], decoder.model)
        return found

    def own(share: Sequence[Answered]) -> AtTokens:
        of_share = _of_share(decoder, share, places, report, everywhere)
        return {place: (h.cpu(), g.cpu()) for place, (h, g) in of_share.items()}

    shares = in_shares(own, texts, decoder.model)
    joined = {place: zip(*(share[place] for share in shares), strict=True) for place in places}
    return {place: tuple(torch.cat(part).to(decoder.device) for part in pair) for place, pair in joined.items()}  # type: ignore[misc]


def check_backward(decoder: Decoder, places: Sequence[int]) -> None:
    """Refuses maps to which no gradient comes back, found by running a few tokens.

    Args:
        decoder: The model.
        places: The edited places.

    Raises:
        EditError: Names the map, and what would work.
    """
    ids = probe_inputs(decoder, 1)["input_ids"][0].tolist()
    kind = type(decoder.model).__name__
    try:
        with torch.enable_grad(), frozen(decoder.model):
            found = _pass(decoder, [(ids, 1)], places)
    except (EditError, MemoryError, torch.OutOfMemoryError):
        raise
    # Kernels of several libraries fail in ways of their own where they do not run on a device.
    except Exception as error:
        raise EditError(
            f"{kind} cannot be run with gradients here ({type(error).__name__}: {error}), so no values can be taken "
            "from them. Run it on another device, load it without quantization, or leave out `source`."
        ) from error
    for place, (_, gradients) in found.items():
        if not bool(gradients.isfinite().all() and gradients.any()):
            raise _no_gradient(decoder, place)


def _of_share(
    decoder: Decoder, texts: Sequence[Answered], places: Sequence[int], report: Report, everywhere: bool
) -> AtTokens:
    counts = [len(ids) - (1 if everywhere else start) for ids, start in texts]
    first, found, done = [0, *accumulate(counts)], AtTokens(), 0

    def run(chosen: Sequence[int]) -> tuple[Sequence[int], AtTokens]:
        return chosen, _pass(decoder, [texts[i] for i in chosen], places, everywhere)

    with torch.enable_grad(), frozen(decoder.model), fast(decoder):
        for together in answer_groups(decoder, texts):
            for part, states in halving(run, together, decoder.model):
                rows = torch.cat([torch.arange(first[i], first[i + 1]) for i in part])
                for place, pair in states.items():
                    if place not in found:
                        found[place] = tuple(x.new_empty(first[-1], x.shape[1], dtype=torch.float64) for x in pair)  # type: ignore[assignment]
                    for whole, some in zip(found[place], pair, strict=True):
                        whole[rows.to(whole.device)] = some.double()
                done += len(part)
                report("values (edits)", done, len(texts))
    return found


def answer_groups(decoder: Decoder, texts: Sequence[Answered]) -> Iterator[list[int]]:
    """Texts that go through the model together: indices, few enough tokens, and few enough logits."""
    vocabulary = decoder.model.config.get_text_config().vocab_size
    most, lengths = decoder.tokens_at_once(MAX_TOKENS), [len(ids) - 1 for ids, _ in texts]
    for together in by_length(lengths, most, tokens_of_a_pass(decoder.device)):
        answers = [len(texts[i][0]) - texts[i][1] for i in together]
        for part in by_length(answers, max(1, MAX_LOGITS // vocabulary)):
            yield [together[i] for i in part]


def _pass(decoder: Decoder, texts: Sequence[Answered], places: Sequence[int], everywhere: bool = False) -> AtTokens:
    batch = pad([ids[:-1] for ids, _ in texts], decoder.device)
    at = [(row, start - 1 + i, token) for row, (ids, start) in enumerate(texts) for i, token in enumerate(ids[start:])]
    rows, columns, tokens = (torch.tensor(column, device=decoder.device) for column in zip(*at, strict=True))
    index = rows * batch.input_ids.shape[1] + columns
    if everywhere:
        index = batch.real.reshape(-1).nonzero()[:, 0]
    with ExitStack() as stack:
        seen = [stack.enter_context(output_watched(decoder.down_projection(place), index)) for place in places]
        stack.enter_context(logits_at(decoder.head, rows, columns))
        logits = decoder.model(**batch.inputs()).logits[0]
        loss = cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), tokens, reduction="sum")
        if not loss.requires_grad:
            raise _no_gradient(decoder, places[0])
        if missing := [place for place, one in zip(places, seen, strict=True) if not hasattr(one, "output")]:
            raise _no_gradient(decoder, missing[0])
        gradients = torch.autograd.grad(loss, [one.output for one in seen], allow_unused=True)
    found: AtTokens = {}
    for place, one, gradient in zip(places, seen, gradients, strict=True):
        if gradient is None:
            raise _no_gradient(decoder, place)
        keys = by_token(one.value)
        found[place] = (stacked(keys[index.to(gradient.device)]).detach(), gradient)
    return found


def _no_gradient(decoder: Decoder, place: int) -> EditError:
    return EditError(
        f"No gradient comes back to {decoder.names[place]} when the model reads a text, so no value can be taken from "
        "it. Name another map of the block as `source.maps`, another layer, or leave out `source` for a search."
    )
