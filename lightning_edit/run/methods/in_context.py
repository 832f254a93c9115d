"""Facts put into the context: the baseline that edits nothing."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

from lightning_edit.asking.chat import ChatSettings, ChatTokenizer, chat_of, plain_tokenizer
from lightning_edit.asking.tokenization import check_lengths, encode_prompt
from lightning_edit.baselines.facts import Facts
from lightning_edit.baselines.known_facts import KnownFacts
from lightning_edit.baselines.retrieval import Nearest, Own, Retriever, States, TfIdf, prompts_of
from lightning_edit.errors import EditError
from lightning_edit.loading.weight_forms import Precision, Quantization
from lightning_edit.loop.edit_queue import EditQueue
from lightning_edit.loop.update_loop import UpdateLoop
from lightning_edit.messages import listed
from lightning_edit.metrics import EvaluationSettings
from lightning_edit.models.decoder import Decoder
from lightning_edit.requests import EditRequest
from lightning_edit.run.edit_callback import call_hooks
from lightning_edit.run.measured_module import MeasuredModule
from lightning_edit.settings import Count, CountOrZero, Range, Seed

logger = logging.getLogger(__name__)

# Of the context, a prompt with its facts; the rest is for the answer.
MOST = 0.75
NONE = "facts: the own prompt of %d of %d edits finds none (%s). Look facts up in another way (`model.facts`)%s."
FEWER = "facts: %d of %d prompts get fewer facts than `nearest`, as the model's context has %d tokens."


class InContext(MeasuredModule):
    """No weight is changed: each prompt gets facts before it, as a prompt or a retrieval system would do it.

    Editors that are compared with each other alone look better than they are, since a model that is simply told the
    facts often answers better. All edits are known at once, and every prompt of the evaluation is asked with its facts,
    those that should not change among them, and so are the prompts of `Collateral` and of downstream tasks. There is no
    edited model to save.

    Args:
        model: A folder or hub name of a decoder-only transformers model; ``tiny`` is an embedded one,
            ``tiny-moe`` another, with experts.
        facts: Which facts a prompt gets: ``own``, that of its record, as if a search never failed (IKE without its
            search, arXiv 2305.12740); ``tfidf`` or ``states``, those nearest to it in their words or in the
            model's states.
        nearest: How many facts are looked up; fewer where they would take more than three quarters of the context.
        threshold: The least cosine of a fact that is looked up.
        demonstrations: How many examples of other facts, with question and answer, stand before them.
        preface: How each fact is introduced, with one ``{}`` for it.
        evaluation: What is measured beyond teacher-forced answers.
        dtype: Precision of the weights; ``auto`` keeps that of the file.
        quantization: How all linear maps are quantized; null leaves them as the files have them.
        seed: Of all that is drawn.
        trust_remote_code: See `MeasuredModule`.
    """

    kind = "told"
    by_updates = False
    stages = ("facts",)
    unreplaceable = "All facts are known at once, so none can replace another: set `data.conflicts`."
    weights_kind = KnownFacts
    weights: KnownFacts

    def __init__(
        self,
        model: str,
        facts: Literal["own", "tfidf", "states"] = "own",
        nearest: Count = 4,
        threshold: Annotated[float, Range(at_least=0, below=1)] = 0.0,
        demonstrations: CountOrZero = 0,
        preface: str = "New fact: {}\n",
        evaluation: EvaluationSettings = EvaluationSettings(),  # noqa: B008  (frozen; the default shows in --help)
        dtype: Precision = "auto",
        quantization: Quantization | None = None,
        seed: Seed = 0,
        trust_remote_code: bool = False,
        chat: bool | Literal["auto"] = "auto",
        chat_settings: ChatSettings = ChatSettings(),  # noqa: B008
    ) -> None:
        more: dict[str, Any] = {"seed": seed, "trust_remote_code": trust_remote_code, "chat_settings": chat_settings}
        super().__init__(model, "auto", evaluation, dtype, quantization, chat=chat, **more)
        self.save_hyperparameters(ignore="trust_remote_code")
        if preface.count("{}") != 1:
            raise EditError(f"`preface` must hold exactly one {{}} for the fact, got {preface!r}.")
        if facts == "own" and (nearest, threshold) != (4, 0.0):
            raise EditError(
                "`nearest` and `threshold` have no effect with `facts: own`, where nothing is looked up. Set `facts` "
                "to tfidf or states, or leave them out."
            )
        self.loop = UpdateLoop(EditQueue(None))
        self.automatic_optimization = False

    def settle_layers(self, decoder: Decoder) -> list[int]:
        """None is edited."""
        return []

    @property
    def positions_so_far(self) -> Sequence[int]:
        """All edits once the fit is over, none before."""
        return range(len(self.requests)) if self.loop.edits_written else []

    def configure_optimizers(self) -> None:
        """None: nothing is trained."""

    def _load(self) -> None:
        super()._load()
        settings, plain = self.hparams, plain_tokenizer(self.tokenizer)
        retriever: Retriever = Own()
        if settings.facts != "own":
            encoder = TfIdf() if settings.facts == "tfidf" else States(self.decoder, plain)
            retriever = Nearest(encoder, settings.nearest, settings.threshold)
        fits = partial(_fits, ChatTokenizer(plain, chat_of(self.tokenizer)), self.decoder.context)
        self.weights.facts = Facts(retriever, settings.preface, settings.demonstrations, fits)
        self.tokenizer = ChatTokenizer(plain, chat_of(self.tokenizer), self.weights.facts)
        self.settle_measures()

    def check_requests(self) -> None:
        """Refuses prompts that with their facts do not fit the context.

        Raises:
            EditError: See `check_lengths`.
        """
        assert self.weights.facts is not None
        with self.weights.restored():
            self.weights.facts.known = self.requests
            named = [(prompt, request) for request in self.requests for prompt in prompts_of(request)]
            lengths = [len(encode_prompt(self.tokenizer, prompt)) for prompt, _ in named]
            shortened, bare = len(self.weights.facts.shortened), self.weights.facts.bare
            without = [request.name for request in self.requests if request.rewrite_prompt in bare]
        names = [f"{request.name} with its facts" for _, request in named]
        remedy = f"Shorten it{', or lower `model.demonstrations`' * bool(self.hparams.demonstrations)}."
        check_lengths(lengths, names, self.decoder.context, remedy)
        if shortened:
            logger.warning(FEWER, shortened, len({prompt for prompt, _ in named}), self.decoder.context)
        if without:
            lower = ", or lower `model.threshold`" * bool(self.hparams.threshold)
            logger.warning(NONE, len(without), len(self.requests), listed(without, 3), lower)

    def training_step(self, batch: Sequence[EditRequest], batch_idx: int) -> None:
        """Nothing is to be found for an edit."""

    def on_fit_end(self) -> None:
        """From here on the facts are known."""
        self.to(self.trainer.strategy.root_device)
        assert self.weights.facts is not None
        self.weights.facts.known = self.requests
        self.loop.edits_written, self.loop.updates_written = len(self.requests), 1
        call_hooks(self, "on_edits_written")
        call_hooks(self, "on_edits_done")


def _fits(tokenizer: Any, context: int | None, text: str) -> bool:
    """Whether a prompt with its facts leaves room for an answer."""
    return context is None or len(encode_prompt(tokenizer, text)) <= MOST * context
