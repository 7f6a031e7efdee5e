"""A stand-in as a wider one that says the same: so that weights of a width that four bits cannot hold need not be learned again.

What is new starts so that nothing changes: new entries of the residual stream are zero, whatever reads them is random, whatever would write them is zero,
and each norm is told that its mean square now runs over more entries. Only image tokens gain a tenth in size, since the norm after their projection has
no weight to tell. Trained on, the new entries fill up."""
import json
from pathlib import Path
import torch
from safetensors.torch import load_file
from transformers import Gemma3nConfig, Gemma3nForConditionalGeneration

READS_NEW = ("laurel.linear_right", "per_layer_projection.weight", "o_proj")  # what comes into their new columns is not zero, so these are


def norm_factor(name, old, new):
    "What a norm's weight is multiplied by."
    if name.endswith("language_model.norm.weight"):
        return 1.  # the head's rows are smaller by as much
    if "router_norm" in name:
        return (old / new)**.5 * new / old  # the router divides by the width
    return (old / new)**.5


def widened(name, given, shape, old, new, layers):
    "One tensor in its new shape."
    out = torch.zeros(shape)
    if len(shape) == 1 and given.shape[0] == old:
        out[:] = 1
        out[:old] = given
        return out * (norm_factor(name, old, new) if "norm" in name else 1)
    if len(shape) == 1:  # the norm of the per-layer inputs
        out[:given.shape[0]] = given * (given.shape[0] / shape[0])**.5
        return out
    if "embed_tokens_per_layer" in name:
        narrow = given.shape[1] // layers
        out.view(shape[0], layers, -1)[:, :, :narrow] = given.view(shape[0], layers, narrow) * (narrow * layers / shape[1])**.5
        return out
    if "embed_tokens" in name or "lm_head" in name:
        out[:, :old] = given * (old / new)**.5
        return out
    if "per_layer_model_projection" in name:
        narrow = given.shape[0] // layers
        out.view(layers, -1, shape[1])[:, :narrow, :old] = given.view(layers, narrow, old)
        return out
    if "embed_" not in name:
        out = torch.randn(shape) * given.std() / 2
        if shape[0] == new and not any(part in name for part in ("q_proj", "k_proj", "v_proj")):
            out[old:] = 0
        if any(part in name for part in READS_NEW):
            out[:, given.shape[1]:] = 0
    out[tuple(slice(n) for n in given.shape)] = given
    return out


def widen(
    folder,                # of the narrow stand-in
    width=192,
    inner=64               # width of the per-layer inputs and of laurel
):
    "The wide model, float32."
    config = Gemma3nConfig.from_pretrained(folder)
    text, given = config.text_config, load_file(Path(folder) / "model.safetensors")
    old, head = text.hidden_size, text.head_dim
    text.hidden_size, text.hidden_size_per_layer_input, text.laurel_rank = width, inner, inner
    text.num_attention_heads = text.num_key_value_heads = width // head
    model = Gemma3nForConditionalGeneration(config)
    given = {name: value.float() for name, value in given.items()}
    state = {}
    for name, value in model.state_dict().items():
        known = given[name if name in given else "model.language_model.embed_tokens.weight"]  # the head is the table
        same = value.shape == known.shape and tuple(value.shape) != (width,)
        state[name] = known if same else widened(name, known, value.shape, old, width, text.num_hidden_layers)
    model.load_state_dict(state)
    model.config.vision_config.model_args = json.loads((Path(folder) / "config.json").read_text())["vision_config"]["model_args"]
    return model
