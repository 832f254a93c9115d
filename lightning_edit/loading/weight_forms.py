"""The forms in which weights are kept, as settings name them."""

from typing import Literal

Precision = Literal["auto", "float64", "float32", "bfloat16", "float16"]
Quantization = Literal["bnb-4bit", "bnb-8bit", "torchao-int8", "torchao-float8"]
# Where the update of a quantized model is kept: in plain matrices, or as factors beside their codes.
Write = Literal["merged", "beside"]
