"""A probe that attends to all tokens of a frozen encoder, instead of to their mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = 64
"""Of each attention head, as in nearly every published transformer."""


class AttentiveProbe(nn.Module):
    """Tokens `[B, N, F]` -> logits `[B, C]`: a learned query attends to the tokens, then a residual layer of two fully
    connected ones, then the classifier (V-JEPA, arXiv 2404.08471, section 5.1).

    features: F
    classes: C
    dropout: share of pooled features zeroed before the classifier
    """

    def __init__(self, features: int, classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = max(1, features // CHANNELS) if features % CHANNELS == 0 else 1
        self.query = nn.Parameter(torch.empty(1, 1, features))
        nn.init.trunc_normal_(self.query, std=0.02)
        self.before = nn.LayerNorm(features)
        self.keys_values = nn.Linear(features, 2 * features)
        self.out = nn.Linear(features, features)
        self.after = nn.LayerNorm(features)
        self.mixing = nn.Sequential(nn.Linear(features, 4 * features), nn.GELU(), nn.Linear(4 * features, features))
        self.classify = nn.Sequential(nn.LayerNorm(features), nn.Dropout(dropout), nn.Linear(features, classes))

    def forward(self, tokens: Tensor) -> Tensor:
        keys, values = self.keys_values(self.before(tokens)).chunk(2, dim=-1)
        query = self.query.expand(tokens.shape[0], -1, -1)
        split = [one.unflatten(-1, (self.heads, -1)).transpose(1, 2) for one in (query, keys, values)]
        seen = functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        pooled = query + self.out(seen)
        pooled = pooled + self.mixing(self.after(pooled))
        logits: Tensor = self.classify(pooled[:, 0])
        return logits
