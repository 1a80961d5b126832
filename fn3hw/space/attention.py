"""Multi-head attention in terms of its heads, so that a head can be a block.

The attention modules of torch and torchvision are single operations that know their number of heads. Here each of them
is taken apart into the product that makes queries, keys and values, `HeadAttention`, which works with as many heads as
it is given, and the product behind it. Parameters stay where they are, under their names.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

ATTENTION_PREFIX = "fn3hw_attention"
_MASKED = -100.0
"""What is added to scores of positions that a shifted window does not see (Liu et al., Swin Transformer, 2021)."""


class HeadAttention(nn.Module):
    """Scaled dot-product attention of any number of heads (Vaswani et al., 2017, sec. 3.2).

    Args:
        head_dim: channels per head.
        dropout: probability that a weight is dropped in training.
    """

    def __init__(self, head_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.head_dim, self.dropout = head_dim, dropout

    def forward(self, qkv: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Output (N, L, H·D) for queries, keys and values (N, L, 3·H·D) and a bias of the scores (1 or N, H, L, L)."""
        query, key, value = qkv.chunk(3, dim=-1)
        if torch.onnx.is_in_onnx_export():
            heads = query.shape[-1] // self.head_dim
            return torch.onnx.ops.attention(query, key, value, bias, q_num_heads=heads, kv_num_heads=heads)[0]
        query, key, value = (self._heads_first(x) for x in (query, key, value))
        p = self.dropout if self.training else 0.0
        return (
            F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=p).transpose(-2, -3).flatten(-2)
        )

    def _heads_first(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(*x.shape[:-1], -1, self.head_dim).transpose(-2, -3)

    def extra_repr(self) -> str:
        """Channels per head."""
        return f"head_dim={self.head_dim}"


def lower_attention(module: fx.GraphModule) -> None:
    """Take the attention operations of a traced module apart, where they are self-attention without masks."""
    changed = False
    for node in list(module.graph.nodes):
        if node.op == "call_module" and isinstance(module.get_submodule(str(node.target)), nn.MultiheadAttention):
            changed |= _lower_multihead(module, node)
        elif getattr(node.target, "__name__", "") == "shifted_window_attention" and node.op == "call_function":
            changed |= _lower_windows(module, node)
    if changed:
        module.graph.eliminate_dead_code()
        module.recompile()


def _lower_multihead(module: fx.GraphModule, node: fx.Node) -> bool:
    """``torch.nn.MultiheadAttention`` of a sequence with itself, whose weights nobody reads."""
    name, given = str(node.target), dict(zip(("query", "key", "value"), node.args, strict=False)) | dict(node.kwargs)
    attention = module.get_submodule(name)
    assert isinstance(attention, nn.MultiheadAttention)
    same = given.get("query") is given.get("key") is given.get("value")
    plain = not {"key_padding_mask", "attn_mask", "is_causal"} & {k for k, v in given.items() if v not in (None, False)}
    usual = attention.in_proj_weight is not None and attention.batch_first and attention.bias_k is None
    outputs = [u for u in node.users if u.args[1:] == (0,)]
    unread = all(not u.users for u in node.users if u not in outputs)
    if not (same and plain and usual and unread) or attention.add_zero_attn or len(node.args) > 3:
        return False
    graph, source = module.graph, given["query"]
    with graph.inserting_before(node):
        qkv = graph.call_function(F.linear, (source, *_parameters(graph, f"{name}.in_proj", attention.in_proj_bias)))
        heads = _heads(module, node, name, attention.head_dim, attention.dropout, (qkv,))
        projection = f"{name}.out_proj"
        out = graph.call_function(F.linear, (heads, *_parameters(graph, projection, attention.out_proj.bias, ".")))
    for user in outputs:
        user.replace_all_uses_with(out)
    return True


def _parameters(
    graph: fx.Graph, name: str, bias: torch.Tensor | None, dot: str = "_"
) -> tuple[fx.Node, fx.Node | None]:
    return graph.get_attr(f"{name}{dot}weight"), None if bias is None else graph.get_attr(f"{name}{dot}bias")


def _lower_windows(module: fx.GraphModule, node: fx.Node) -> bool:
    """Torchvision's ``shifted_window_attention`` with a relative position bias, as Swin transformers have it."""
    keys = (
        *("input", "qkv_weight", "proj_weight", "relative_position_bias", "window_size", "num_heads", "shift_size"),
        *("attention_dropout", "dropout", "qkv_bias", "proj_bias", "logit_scale", "training"),
    )
    given: dict[str, Any] = dict(zip(keys, node.args, strict=False)) | dict(node.kwargs)
    if given.get("logit_scale") is not None:
        return False
    weight = given["qkv_weight"]
    name = str(weight.target).removesuffix(".qkv.weight")
    width = module.get_parameter(str(weight.target)).shape[1]
    window, shift = tuple(given["window_size"]), tuple(given["shift_size"])
    graph, source = module.graph, given["input"]
    with graph.inserting_before(node):
        windows = graph.call_function(to_windows, (source, window, shift))
        qkv = graph.call_function(F.linear, (windows, weight, given.get("qkv_bias")))
        bias = graph.call_function(shifted_bias, (given["relative_position_bias"], source, window, shift))
        dropout = float(given.get("attention_dropout", 0.0))
        heads = _heads(module, node, name, width // int(given["num_heads"]), dropout, (qkv, bias))
        out = graph.call_function(F.linear, (heads, given["proj_weight"], given.get("proj_bias")))
        if p := float(given.get("dropout", 0.0)):
            path = f"{ATTENTION_PREFIX}.{node.name}_dropout"
            module.add_submodule(path, nn.Dropout(p))
            out = graph.call_module(path, (out,))
        back = graph.call_function(from_windows, (out, source, window, shift))
    node.replace_all_uses_with(back)
    return True


def _heads(
    module: fx.GraphModule, node: fx.Node, name: str, head_dim: int, dropout: float, args: tuple[fx.Node, ...]
) -> fx.Node:
    path = f"{ATTENTION_PREFIX}.{name.replace('.', '_')}"
    module.add_submodule(path, HeadAttention(head_dim, dropout))
    return module.graph.call_module(path, args)


def to_windows(x: torch.Tensor, window: tuple[int, int], shift: tuple[int, int]) -> torch.Tensor:
    """Images (N, H, W, C), padded and rolled by ``shift``, as windows (N·windows, positions, C)."""
    (rows, columns), (down, right) = _padded(x, window), _shift(x, window, shift)
    height, width, channels = x.shape[1:]
    x = F.pad(x, (0, 0, 0, columns - width, 0, rows - height))
    if down or right:
        x = torch.roll(x, (-down, -right), (1, 2))
    x = x.view(-1, rows // window[0], window[0], columns // window[1], window[1], channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, window[0] * window[1], channels)


def from_windows(
    x: torch.Tensor, images: torch.Tensor, window: tuple[int, int], shift: tuple[int, int]
) -> torch.Tensor:
    """The inverse of `to_windows`; ``images`` gives the size (N, H, W, ...)."""
    (rows, columns), (down, right) = _padded(images, window), _shift(images, window, shift)
    channels = x.shape[-1]
    x = x.view(-1, rows // window[0], columns // window[1], window[0], window[1], channels)
    x = x.permute(0, 1, 3, 2, 4, 5).reshape(-1, rows, columns, channels)
    if down or right:
        x = torch.roll(x, (down, right), (1, 2))
    return x[:, : images.shape[1], : images.shape[2], :].contiguous()


def shifted_bias(
    bias: torch.Tensor, images: torch.Tensor, window: tuple[int, int], shift: tuple[int, int]
) -> torch.Tensor:
    """A bias of scores (1, H, L, L) for all windows of shifted images (N·windows, H, L, L); unshifted it stays."""
    (rows, columns), (down, right) = _padded(images, window), _shift(images, window, shift)
    if not (down or right):
        return bias
    vertical = _regions(rows, window[0], down, bias.device)
    horizontal = _regions(columns, window[1], right, bias.device)
    region = (3 * vertical[:, None] + horizontal).view(rows // window[0], window[0], columns // window[1], window[1])
    region = region.permute(0, 2, 1, 3).reshape(-1, window[0] * window[1])
    unseen = (region[:, None, :] != region[:, :, None]).to(bias.dtype) * _MASKED
    return (bias + unseen[:, None]).repeat(images.shape[0], 1, 1, 1)


def _regions(length: int, window: int, shift: int, device: torch.device) -> torch.Tensor:
    """For each row its region: rows of different regions were no neighbours before the roll."""
    rows = torch.arange(length, device=device)
    return (rows >= length - window).long() + (rows >= length - shift).long() if shift else torch.zeros_like(rows)


def _padded(images: torch.Tensor, window: tuple[int, int]) -> tuple[int, int]:
    height, width = images.shape[1], images.shape[2]
    return -(-height // window[0]) * window[0], -(-width // window[1]) * window[1]


def _shift(images: torch.Tensor, window: tuple[int, int], shift: tuple[int, int]) -> tuple[int, int]:
    """An axis that a single window covers is not shifted."""
    rows, columns = _padded(images, window)
    return 0 if window[0] >= rows else shift[0], 0 if window[1] >= columns else shift[1]
