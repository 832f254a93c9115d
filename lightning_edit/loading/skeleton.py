"""A model's modules without its weights: what an edit would write to is known before anything is loaded."""

import copy
from typing import Any

import torch
from transformers import AutoModelForCausalLM


def skeleton_of(config: Any, trust_remote_code: bool = False) -> Any:
    """The model of a configuration with all weights on ``meta``, none of them quantized.

    Args:
        config: A transformers configuration.
        trust_remote_code: Whether code that comes with the model may be run.
    """
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(copy.deepcopy(config), trust_remote_code=trust_remote_code)


def skeleton_like(model: Any) -> Any:
    """The same for a model in memory: the modules that it had before it was quantized.

    Args:
        model: A transformers model.
    """
    with torch.device("meta"):
        return type(model)(copy.deepcopy(model.config))
