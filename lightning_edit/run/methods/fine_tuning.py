"""Fine-tuning of a few weights on the edits: the baselines FT and FT-L, run by Lightning's own training loop."""

import time
from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_edit.asking.chat import ChatSettings, chat_of
from lightning_edit.asking.tokenization import check_lengths, encode_target
from lightning_edit.errors import EditError
from lightning_edit.loading.weight_forms import Precision, Quantization, Write
from lightning_edit.loop.edit_queue import EditQueue
from lightning_edit.loop.update_loop import UpdateLoop
from lightning_edit.metrics import EvaluationSettings
from lightning_edit.models.batches import pad
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.finding.sites import SiteKind
from lightning_edit.models.hooks import logits_at
from lightning_edit.requests import EditRequest
from lightning_edit.run.edit_callback import call_hooks
from lightning_edit.run.learned_answers import find_answers
from lightning_edit.run.measured_module import MeasuredModule
from lightning_edit.settings import Layers, NotNegative, Positive, Rate, Seed
from lightning_edit.solvers import Factors
from lightning_edit.storage.fingerprint import fingerprint


def encode_answer(tokenizer: Any, request: EditRequest, end: bool) -> tuple[list[int], int]:
    """Tokens of an edit's prompt and new answer, and where the answer starts.

    Args:
        tokenizer: The model's fast tokenizer.
        request: The edit.
        end: Whether the answer ends: with the end of its turn in a chat, else with the end-of-text token.
    """
    ids, start = encode_target(tokenizer, request.rewrite_prompt, request.learned, request.separator, end)
    return ([*ids, tokenizer.eos_token_id] if end and chat_of(tokenizer) is None else ids), start


def target_nll(decoder: Decoder, tokenizer: Any, requests: Sequence[EditRequest], end: bool = False) -> Tensor:
    """NLL of each new target after its rewrite prompt, averaged over the target's tokens, with gradients.

    Args:
        decoder: The model.
        tokenizer: Its fast tokenizer.
        requests: The n edits.
        end: See `encode_answer`.

    Returns:
        ``(n,)`` in nats a token.
    """
    encoded = [encode_answer(tokenizer, request, end) for request in requests]
    batch = pad([ids[:-1] for ids, _ in encoded], decoder.device)
    places = [
        (row, start - 1 + i, token) for row, (ids, start) in enumerate(encoded) for i, token in enumerate(ids[start:])
    ]
    rows, columns, tokens = (torch.tensor(column, device=decoder.device) for column in zip(*places, strict=True))
    with logits_at(decoder.head, rows, columns):
        logits = decoder.model(**batch.inputs()).logits[0]
    nll = cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), tokens, reduction="none")
    return nll.new_zeros(len(requests)).index_add(0, rows, nll) / torch.bincount(rows)


def in_order(requests: Sequence[EditRequest], seed: int, epoch: int) -> list[EditRequest]:
    """The edits in the order of an epoch, which depends on nothing else.

    Args:
        requests: The edits.
        seed: Of the run.
        epoch: Which.
    """
    # Neighboring seeds and epochs must not have orders in common.
    drawn = int(fingerprint("order of an epoch", str(seed), str(epoch))[:15], 16)
    order = torch.randperm(len(requests), generator=torch.Generator().manual_seed(drawn))
    return [requests[position] for position in order.tolist()]


def check_answers(decoder: Decoder, tokenizer: Any, requests: Sequence[EditRequest], end: bool) -> None:
    """Refuses edits that cannot be trained on.

    Args:
        decoder: The model.
        tokenizer: Its fast tokenizer.
        requests: The edits.
        end: See `encode_answer`.

    Raises:
        EditError: If an answer cannot end, and see `check_lengths`.
    """
    if end and chat_of(tokenizer) is None and tokenizer.eos_token_id is None:
        raise EditError("`train_end`: the tokenizer knows no end-of-text token. Leave the setting out.")
    lengths = [len(encode_answer(tokenizer, request, end)[0]) - 1 for request in requests]
    check_lengths(lengths, [request.name for request in requests], decoder.context)


def check_trainable(decoder: Decoder) -> None:
    """Refuses float16, in which Adam divides by zero: small gradients have a square of 0 there, and its eps is 0.

    Args:
        decoder: The model.

    Raises:
        EditError: Says which precisions can be trained.
    """
    if decoder.model.dtype == torch.float16:
        raise EditError(
            "Weights in float16 cannot be trained by Adam, which divides by numbers that are 0 in it: load the model "
            "with `model.dtype: float32` or bfloat16."
        )


class FineTuning(MeasuredModule):
    """FT: Adam on the edited weights W themselves for the NLL of the new targets; FT-L keeps W near what it was.

    Each epoch is one pass over the edits in batches of ``data.batch_size``, so ``trainer.max_epochs`` is the number of
    passes of the published loop (ROME, appendix E.1). FT-L clamps every entry of W to W0 +- eps after each step (Zhu et
    al., arXiv 2012.00363). All edits are one update. Two things are not as in the published code: it scores all tokens
    of a target at the prompt's last position, here they are teacher-forced; and it trains biases as well, here only W.

    Args:
        model: A folder or hub name of a decoder-only transformers model; ``tiny`` is an embedded one,
            ``tiny-moe`` another, with experts.
        layers: The layers to train, the lowest is 0; ``auto`` takes the one a quarter of the way up.
        lr: Learning rate of Adam.
        weight_decay: Of Adam.
        norm_constraint: eps, the largest change of an entry of W (L-infinity); None is FT, a number FT-L.
        early_stop_loss: In nats a token; the fit ends once an epoch's mean loss is below it, and a batch below it makes
            no step.
        train_end: Whether the answer ends where the model is to stop: with the end of its turn in a chat, as by
            ``chat_settings.train_end``, else with the end-of-text token (LocFT).
        shuffle: Whether each epoch has an order of its own, drawn from ``seed``, or all have that of the data.
        evaluation: What is measured beyond teacher-forced answers.
        dtype: Precision of the weights; ``auto`` keeps that of the file.
        quantization: How all linear maps but the edited ones are quantized; null leaves them as the files have them.
        write: Where updates of a quantized model are kept: ``merged``, in plain matrices, or ``beside`` their codes.
        down_projection: Name of the trained modules with ``{}`` for the layer, where they cannot be found by structure.
        sites: What of a layer is trained: its ``experts``, the ``shared`` expert, a ``dense`` MLP, or ``auto``.
        seed: Of all that is drawn.
        trust_remote_code: See `MeasuredModule`.
    """

    kind = "trained"
    single_epoch = by_updates = False
    stages = ("training",)
    unreplaceable = "Fine-tuning makes all edits at once, so none can replace another: set `data.conflicts`."

    def __init__(
        self,
        model: str,
        layers: Layers = "auto",
        lr: Rate = 5e-4,
        weight_decay: NotNegative = 0.0,
        norm_constraint: Positive | None = None,
        early_stop_loss: NotNegative = 0.01,
        train_end: bool = False,
        evaluation: EvaluationSettings = EvaluationSettings(),  # noqa: B008  (frozen; the default shows in --help)
        dtype: Precision = "auto",
        quantization: Quantization | None = None,
        write: Write = "merged",
        down_projection: str | None = None,
        sites: SiteKind = "auto",
        seed: Seed = 0,
        trust_remote_code: bool = False,
        chat: bool | Literal["auto"] = "auto",
        chat_settings: ChatSettings = ChatSettings(),  # noqa: B008
        shuffle: bool = False,
    ) -> None:
        weights, rest = (dtype, quantization, write, down_projection, sites), (trust_remote_code, chat, chat_settings)
        super().__init__(model, layers, evaluation, *weights, seed, None, None, *rest)
        self.save_hyperparameters(ignore="trust_remote_code")
        self.loop = UpdateLoop(EditQueue(None))
        self.lr, self.weight_decay, self.eps = lr, weight_decay, norm_constraint
        self.early_stop_loss, self.train_end = early_stop_loss, train_end or chat_settings.train_end
        self.shuffle, self._order = shuffle, list[EditRequest]()
        self._began, self._trained, self._next = 0.0, 0, 0

    @property
    def positions_so_far(self) -> Sequence[int]:
        """All edits once the fit is over, none before."""
        return range(len(self.requests)) if self.loop.edits_written else []

    def configure_model(self) -> None:
        """Loads the model and makes the edited weights trainable."""
        super().configure_model()
        for layer in self.layers:
            self.decoder.parameter(layer).requires_grad_(True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam on the edited weights."""
        weights: list[Any] = [self.decoder.parameter(layer) for layer in self.layers]
        return torch.optim.Adam(weights, lr=self.lr, weight_decay=self.weight_decay)

    def configure_callbacks(self) -> list[Callback]:
        """Ends the fit as soon as the edits are learned."""
        return [
            EarlyStopping(
                "nll",
                patience=2**31,
                stopping_threshold=self.early_stop_loss,
                check_on_train_epoch_end=True,
                verbose=False,
            )
        ]

    def check_model(self) -> None:
        """Also refuses a precision that cannot be trained.

        Raises:
            EditError: See `check_trainable`.
        """
        super().check_model()
        if not self.measured_again:
            check_trainable(self.decoder)

    def check_requests(self) -> None:
        """Refuses prompts that do not fit the context.

        Raises:
            EditError: See `check_lengths`.
        """
        check_answers(self.decoder, self.tokenizer, self.requests, self.train_end)

    def on_fit_start(self) -> None:
        """Tells of a loop that is hardly one, and finds out what is to be learned."""
        find_answers(self)
        if self.trainer.max_epochs == 1:
            rank_zero_warn("Fine-tuning makes one pass over the edits, 25 in the papers: see `trainer.max_epochs`.")

    def on_train_epoch_start(self) -> None:
        """Starts the clock, and draws the order of the edits."""
        self._began, self._next = time.perf_counter(), 0
        if self.shuffle:
            self._order = in_order(self.requests, self.seed, self.current_epoch)

    def training_step(self, batch: Sequence[EditRequest], batch_idx: int) -> Tensor | None:
        """The mean over a batch of edits of the NLL of the new target; a batch that is learned makes no step."""
        self._trained += len(batch) if self.current_epoch == 0 else 0
        if self.shuffle:
            batch, self._next = self._order[self._next : self._next + len(batch)], self._next + len(batch)
        loss = target_nll(self.decoder, self.tokenizer, batch, self.train_end).mean()
        self.log("nll", loss.detach(), on_epoch=True, on_step=False, batch_size=len(batch), logger=False)
        return None if float(loss.detach()) < self.early_stop_loss else loss

    @torch.no_grad()
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """FT-L: brings every entry of W back to W0 +- eps."""
        if self.eps is None:
            return
        for layer in self.layers:
            weight, base = self.decoder.weight(layer), self.weights.base[layer]
            base = base.to(weight.device)
            weight.copy_(weight.clamp(base - self.eps, base + self.eps))

    def on_train_epoch_end(self) -> None:
        """Shows and logs the epoch's loss."""
        self.seconds["training"] += time.perf_counter() - self._began
        loss = float(self.trainer.callback_metrics["nll"])
        self.log_figures({"training/nll": loss}, self.current_epoch + 1)
        self.report("fine-tuning (epochs)", self.current_epoch + 1, self.trainer.max_epochs, nll=loss)

    def on_train_end(self) -> None:
        """Ends the progress bar where the edits were learned before the last epoch."""
        if self.trainer.current_epoch < (self.trainer.max_epochs or 0):
            self.report("fine-tuning (epochs)", self.trainer.current_epoch, self.trainer.current_epoch)

    def on_fit_end(self) -> None:
        """Keeps what training changed as the update of the run.

        Raises:
            EditError: If training diverged; the weights are then as they were. If no edit had its turn.
        """
        self.to(self.trainer.strategy.root_device)
        self._check_all_trained()
        learned = self.learned()
        parts = [part for factors in learned.values() for part in (factors.left, factors.right) if part is not None]
        if not all(bool(tensor.isfinite().all()) for tensor in (self.trainer.callback_metrics["nll"], *parts)):
            with self.weights.undone_on_error():
                raise EditError("Fine-tuning diverged: its loss or weights are no finite numbers. Lower `model.lr`.")
        self.take_over(learned)
        self.loop.edits_written, self.loop.updates_written = self._trained, 1
        info = {"model": self.model_name, "method": repr(self), "layers": self.layers, "edits": self._trained}
        self.update = self.weights.update(**info)
        call_hooks(self, "on_edits_written")
        call_hooks(self, "on_edits_done")

    @property
    def levers(self) -> dict[str, float]:
        """What bounds the weights, where anything does."""
        return {} if self.eps is None else {"norm_constraint": self.eps}

    def learned(self) -> dict[int, Factors]:
        """For each layer the change of its weight, W - W0."""
        weights = {layer: self.decoder.weight(layer).detach() for layer in self.layers}
        return {
            layer: Factors(weight.double() - self.weights.base[layer].to(weight.device).double())
            for layer, weight in weights.items()
        }

    def take_over(self, learned: dict[int, Factors]) -> None:
        """Makes what was learned the edit of the weights, which hold it already."""
        self.weights.added.update(learned)

    def _check_all_trained(self) -> None:
        """Says so where the trainer ended the fit before all edits had their turn, e.g. at its `max_steps`."""
        left = len(self.requests) - self._trained
        ended = f"The trainer ended the fit before {left} of {len(self.requests)} edits had their turn"
        remedy = "Raise or leave out `trainer.max_time` and `trainer.max_steps`"
        if not self._trained:
            raise EditError(f"{ended}, so nothing is edited. {remedy}.")
        if left > 0:
            rank_zero_warn(f"{ended}. {remedy} to train on all.")
