"""The embedded fictional world, as edits to make and as text to preserve."""

import random
from collections.abc import Iterator
from typing import Annotated, Any

from lightning_edit.collateral import Sources
from lightning_edit.datamodules.base import EditDataModule
from lightning_edit.datamodules.preservation import PreservationText
from lightning_edit.errors import EditError
from lightning_edit.probes import GeneralPrompt, PublicFact
from lightning_edit.requests import PROMPT_LISTS, EditRequest
from lightning_edit.settings import AMOUNT, NO_EFFECT, SOURCE, Count, Seed
from lightning_edit.tiny import World

# More questions about so small a world say nothing new.
GENERAL = 100


class TinyWorldText(PreservationText):
    """The sentences that the embedded model was trained on: true facts and small talk.

    Args:
        seed: Their order.
    """

    def __init__(self, seed: Seed = 0) -> None:
        self.seed = seed

    def texts(self) -> Iterator[str]:
        """The sentences."""
        yield from World.generate().sentences(self.seed)


class TinyWorld(EditDataModule):
    """Counterfactual edits of the embedded fictional world.

    Args:
        edits: How many of the 400 subjects get a new answer.
        seed: Which ones.
        preservation: Ordinary text for the second moments; the world's own sentences if not given.
    """

    def __init__(
        self,
        edits: Annotated[Count, AMOUNT] = 64,
        seed: Seed = 0,
        batch_size: Count = 64,
        eval_batch_size: Annotated[Count, NO_EFFECT] = 256,
        preservation: Annotated[PreservationText | None, SOURCE] = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size, eval_batch_size=eval_batch_size, preservation=preservation or TinyWorldText()
        )
        subjects = len(World.generate().subjects)
        if edits > subjects:
            raise EditError(f"`data.edits` must be from 1 to {subjects}, the number of subjects, got {edits}.")
        self.edits, self.seed = edits, seed

    def sources(self) -> Sources:
        """Facts of the world about subjects that are not edited, in place of the shipped ones, which it knows not."""
        world, edited = World.generate(), {request.subject for request in self.requests}
        facts = [fact for fact in world.facts if fact.subject not in edited]
        random.Random(0).shuffle(facts)
        general = [
            GeneralPrompt(world.prompts(fact, held_out=False)[-1], (fact.answer,), fact.relation) for fact in facts
        ]
        public = []
        for fact in facts:
            prompt, question, *others = world.relation(fact.relation).templates
            public.append(PublicFact(fact.relation, fact.subject, prompt, question, fact.answer, tuple(others)))
        return Sources(general[:GENERAL], public, {"subjects": world.subjects})

    def load_requests(self) -> Iterator[EditRequest]:
        """The edits, each of another subject."""
        for record in World.generate().records(self.edits, self.seed):
            prompts: dict[str, Any] = {name: tuple(record[name]) for name in PROMPT_LISTS}
            yield EditRequest(
                subject=record["subject"],
                prompt=record["prompt"],
                target_new=record["target_new"],
                target_true=record["target_true"],
                case_id=str(record["case_id"]),
                **prompts,
            )
