"""Ordinary text where the user gives none: the model's own."""

import json
from typing import Any

import torch

from lightning_edit.distributed.process_group import first_of_machine, gathered
from lightning_edit.loading.fingerprints import describe_numerics, fingerprint_model, fingerprint_tokenizer
from lightning_edit.models.batches import without_mask_warning
from lightning_edit.models.hooks import frozen
from lightning_edit.models.seeded import seeded
from lightning_edit.progress import Report, silent
from lightning_edit.storage.cache import Cache
from lightning_edit.storage.fingerprint import fingerprint

LENGTH = 128
ROWS = 64
KIND, TEXTS = "own-text", "texts"
# To be raised whenever `sample_texts` comes to write other texts.
METHOD = "own text 2"


@torch.no_grad()
def sample_texts(model: Any, tokenizer: Any, tokens: int, seed: int, report: Report = silent) -> list[str]:
    """Texts that the model writes by itself, starting from nothing.

    Text of the kind that the model was trained on preserves better; this is for trying out, and for models whose
    training text is not at hand.

    Args:
        model: The unedited model.
        tokenizer: Its tokenizer.
        tokens: About how many tokens to write.
        seed: Decides the texts; the caller's random state is left as it was.
        report: Called with the number of tokens written.
    """
    device = model.get_input_embeddings().weight.device
    context = getattr(model.config.get_text_config(), "max_position_embeddings", LENGTH) or LENGTH
    length = min(LENGTH, context)
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    texts: list[str] = []
    with frozen(model), without_mask_warning(), seeded(seed):
        while len(texts) * (length - 1) < tokens:
            rows = min(ROWS, -(-tokens // (length - 1)) - len(texts))
            ids = torch.full((rows, 1), start or 0, device=device)
            generated = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                max_new_tokens=length - 1,
                min_new_tokens=length - 1,
                pad_token_id=tokenizer.pad_token_id or 0,
            )
            texts += tokenizer.batch_decode(generated[:, 1:], skip_special_tokens=True)
            report("generate text (tokens)", len(texts) * (length - 1), max(tokens, len(texts) * (length - 1)))
    return texts


def sampling_of(model: Any) -> str:
    """What a model's own settings say of how it writes, such as its temperature.

    Args:
        model: A transformers model.
    """
    settings = model.generation_config.to_dict()
    return json.dumps(
        {name: value for name, value in sorted(settings.items()) if name[0] != "_" and name != "transformers_version"},
        default=str,
    )


def kept_texts(
    model: Any, tokenizer: Any, tokens: int, seed: int, cache_dir: str | None, report: Report = silent
) -> list[str]:
    """What `sample_texts` gives, from the cache where it was written before; writing takes longer than all else of C.

    Args:
        model: See `sample_texts`, as are the others.
        tokenizer: The same.
        tokens: The same.
        seed: The same.
        cache_dir: Folder of the cache; None for none.
        report: The same.
    """
    if cache_dir is None:
        return sample_texts(model, tokenizer, tokens, seed, report)
    parts = {
        "weights": fingerprint_model(model),
        "tokenizer": fingerprint_tokenizer(tokenizer),
        "numerics": describe_numerics(model),
        "sampling": sampling_of(model),
        "method": METHOD,
    }
    cache, name = Cache(cache_dir), fingerprint(*parts.values(), str(tokens), str(seed))
    kept = cache.read(KIND, name)
    # Other processes may see another disk, and with divided weights all of them write, or none.
    if all(gathered(kept is not None)) and kept is not None:
        return list(json.loads(kept[TEXTS].numpy().tobytes()))
    texts = sample_texts(model, tokenizer, tokens, seed, report)
    content = torch.frombuffer(bytearray(json.dumps(texts).encode()), dtype=torch.uint8)
    described = {"model": getattr(model, "name_or_path", ""), "tokens": tokens, "seed": seed, "parts": parts}
    if first_of_machine():
        cache.write(KIND, name, {TEXTS: content}, described)
    return texts
