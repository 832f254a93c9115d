"""Residuals from gradients: keys and output gradients at the tokens that predict an answer, in place of a search."""
