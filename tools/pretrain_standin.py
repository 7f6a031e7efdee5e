"""Make the stand-in: a 4 M parameter Gemma 3n, pretrained on questions about simulator images.

    python tools/pretrain_standin.py --folder thinkact_nb/standin

It plays the pretrained base model where no Gemma fits: it says what is on a table, how much of it, where, how far apart and which is nearest, in
every colour and shape there is, and it repeats text. An hour and a half on two idle CPU cores. Killed and called again it goes on from its last
checkpoint, to the same weights. `pretraining.json` in the folder is the log: loss, and questions answered greedily about tables it never saw.

    python tools/pretrain_standin.py --start FOLDER --rate 6e-4 --drill-steps 0 --reason-steps 1000 --quantized-from 600

is its last stage once more, from weights that see and compute. The package's were made so: the first two stages on 25 November, 60 minutes of two cores;
the third, 2,100 steps, from there, 33 minutes of one core; and 1,000 steps more from these by the line above, 50 minutes of a core beside other work, with
more counting. All seed 0. Between the passes the questions changed, so the first command alone gives other weights, and has been run at toy size only."""
import itertools
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
import numpy as np
import torch
import tyro
from bitsandbytes.functional import get_4bit_type
from timm.models._efficientnet_builder import decode_arch_def
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from tqdm.auto import tqdm
from transformers import (AutoProcessor, Gemma3nAudioFeatureExtractor, Gemma3nConfig, Gemma3nForConditionalGeneration, Gemma3nProcessor, Gemma3nTextConfig,
                          PreTrainedTokenizerFast, SiglipImageProcessor)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.gemma3n.configuration_gemma3n import Gemma3nAudioConfig, Gemma3nVisionConfig
from check_standin import answers, reasoned, summary, unseen_tables
from standin_tables import LANGUAGE, Asker, Driller, Reasoner, repetition, table_of, varied_think, words_scenes
from thinkact_nb.env import SPLIT_SIZE, SPLITS
from thinkact_nb.family import GEMMA3N
from thinkact_nb.sim import BINS, COLOURS
from thinkact_nb.world import World
from thinkact_nb.tasks import TASKS

VOCABULARY = 1152
SOFT_TOKENS = 64
PIXELS = 128
LAYERS = 4
HEAD = 32
WIDTH = 192         # a multiple of 64: a block of NF4 is 64 weights of one row, and bitsandbytes' CPU path reads any other width wrongly
ARCHITECTURE = [["er_r1_k3_s2_e2_c32"], ["er_r1_k3_s2_e2_c64"], ["er_r1_k3_s2_e2_c128", "uir_r1_a5_k5_s1_e2_c128", "uir_r1_a5_k5_s1_e2_c128"]]
SPECIAL = ["<pad>", "<eos>", "<bos>", "<start_of_image>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<start_of_audio>"]
TEMPLATE = """{{ bos_token }}{%- for message in messages -%}{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}{%- if message['content'] is string -%}{{ message['content'] | trim }}{%- else -%}{%- for item in message['content'] -%}{%- if item['type'] == 'image' -%}{{ '<image_soft_token>' }}{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}{%- endfor -%}{%- endif -%}{{ '<end_of_turn>\n' }}{%- endfor -%}{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"""
CROWDS = (1, 2, 8, 6)  # the most things on a table, in each set of tables; in the last all colours differ
KINDS = ("block", "cylinder", "pad", "wall")  # what lies on the tables
READY = .75         # share of first coordinates within two bins at which the next lesson begins
EASY = ("where", "list_all", "list_kind")
KNOWN_LOSS = .02    # nats below which a token is known


# the model

def corpus():
    "Texts that the tokenizer learns its pieces from."
    scenes = words_scenes(tuple(TASKS), 150, 0)
    texts = [text for s in scenes for text in (s.instruction, varied_think(s))]
    for seed in range(1500):
        texts += Asker(np.random.default_rng(seed), table_of(seed, 8).bodies)()
    return texts + [f" {n} cm" for n in range(100)] * 20 + ["user\n\n\n", "model\n"] * 500


def make_processor():
    "A tokenizer whose pieces are the words of the simulator, any other text falls to bytes; laid out like Gemma's."
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL + LANGUAGE, initial_alphabet=alphabet))
    core = Tokenizer.from_str(ordinary(json.loads(core.to_str())))
    unused = [f"<unused{i}>" for i in range(VOCABULARY - core.get_vocab_size())]
    core.add_tokens([AddedToken(t, special=False, normalized=False) for t in unused])
    images = ["<end_of_image>", "<image_soft_token>", *(f"<image{i}>" for i in range(2, 16))]
    core.add_special_tokens([*images, "<end_of_audio>", "<audio_soft_token>"])
    names = dict(image_token="<image_soft_token>", audio_token="<audio_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>",
                 boa_token="<start_of_audio>", eoa_token="<end_of_audio>")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>",
                                        padding_side="left", extra_special_tokens=names)
    pictures = SiglipImageProcessor(size=dict(height=PIXELS, width=PIXELS), do_normalize=False, resample=2)
    return Gemma3nProcessor(Gemma3nAudioFeatureExtractor(), pictures, tokenizer, chat_template=TEMPLATE, image_seq_length=SOFT_TOKENS)


def ordinary(state):
    "The language's words are ordinary pieces: they must survive `skip_special_tokens`."
    for token in state["added_tokens"]:
        token["special"] = token["content"] not in LANGUAGE
    return json.dumps(state)


def tower_settings():
    "The vision tower's; made anew each time, since timm writes objects into what it is given."
    return dict(block_args=decode_arch_def(ARCHITECTURE), stem_size=16, msfa_indices=(3,), msfa_output_resolution=8, layer_scale_init_value=None)


def make_model(tokenizer):
    "An untrained Gemma 3n of the stand-in's size."
    text = Gemma3nTextConfig(vocab_size=VOCABULARY + 32, vocab_size_per_layer_input=VOCABULARY, hidden_size=WIDTH, intermediate_size=4 * WIDTH,
                             num_hidden_layers=LAYERS, num_attention_heads=WIDTH // HEAD, num_key_value_heads=WIDTH // HEAD, head_dim=HEAD,
                             hidden_size_per_layer_input=64, altup_num_inputs=2, num_kv_shared_layers=0, laurel_rank=64,
                             activation_sparsity_pattern=[0.] * LAYERS, sliding_window=512, max_position_embeddings=1024,
                             layer_types=["sliding_attention", "full_attention"] * (LAYERS // 2), pad_token_id=0, eos_token_id=1, bos_token_id=2)
    vision = Gemma3nVisionConfig(architecture="mobilenetv5_300m_enc", hidden_size=2048, vocab_size=16, vocab_offset=VOCABULARY, model_args=tower_settings())
    audio = Gemma3nAudioConfig(vocab_size=16, vocab_offset=VOCABULARY + 16, hidden_size=32, conf_num_attention_heads=2, conf_num_hidden_layers=1,
                               sscp_conv_channel_size=(4, 4))
    ids = {f"{k}_token_id": tokenizer.convert_tokens_to_ids(getattr(tokenizer, f"{k}_token")) for k in ("image", "audio", "boi", "eoi", "boa", "eoa")}
    config = Gemma3nConfig(text_config=text, vision_config=vision, audio_config=audio, vision_soft_tokens_per_image=SOFT_TOKENS, **ids)
    model = Gemma3nForConditionalGeneration(config)
    model.config.vision_config.model_args = tower_settings()
    for layer in model.model.language_model.layers:
        layer.self_attn.q_norm.weight.data.fill_(HEAD**-.5)  # else attention starts far too sharp
    ordered_rows(model, tokenizer)
    return model


def ordered_rows(model, tokenizer):
    "Neighbouring locations start with similar rows: a random mix of slow sines and cosines of the bin number."
    rows = model.get_input_embeddings().weight.data
    ids = tokenizer.convert_tokens_to_ids([f"<loc{i:02d}>" for i in range(BINS)])
    angle = torch.arange(BINS)[:, None] * torch.tensor([.5, 1, 2, 3, 4, 6, 8, 12]) * np.pi / BINS
    waves = torch.cat([angle.sin(), angle.cos()], 1) @ torch.randn(16, WIDTH)
    rows[ids] = waves / waves.std() * rows.std()


class NF4(nn.Module):
    "The weight as NF4 will store it; gradients pass as if nothing had happened."
    def __init__(self):
        super().__init__()
        levels = get_4bit_type("nf4", device="cpu").sort().values
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("edges", (levels[1:] + levels[:-1]) / 2, persistent=False)

    def forward(self, weight):
        blocks = weight.detach().float().reshape(-1, 64)
        scale = blocks.abs().amax(1, keepdim=True)
        stored = self.levels[torch.bucketize(blocks / scale, self.edges)] * scale
        return weight + (stored.reshape(weight.shape) - weight).detach()


def quantized(model):
    "The layers that `load_base` puts into NF4."
    return [m for n, m in model.named_modules() if isinstance(m, nn.Linear) and "language_model" in n and not any(s in n for s in GEMMA3N.whole)]


def through_nf4(model):
    "From now on these layers compute with what NF4 leaves of their weights."
    for layer in quantized(model):
        parametrize.register_parametrization(layer, "weight", NF4())


def exact(model):
    "Their weights as they are, again."
    for layer in quantized(model):
        if parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)


def weights_of(model):
    "The state dictionary under the names it has without NF4."
    return {k.replace("parametrizations.", "").replace(".original", ""): v for k, v in model.state_dict().items()}


# the vision stage

def pixel_of(body):
    "Where a body's centre lies in the image: pixels from the left, from the top."
    eye, target = np.array((1.1, 0, .85)), np.array((.49, 0, .02))
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    way = np.array((body.x, body.y, body.half_height)) - eye
    scale = PIXELS / 2 / np.tan(np.radians(18)) / (way @ forward)
    return PIXELS / 2 + way @ right * scale, PIXELS / 2 - way @ np.cross(right, forward) * scale


def cells_of(scenes):
    "For every scene and each of the 8 by 8 cells: kind (0: nothing), colour, and where in the cell."
    kinds = np.zeros((len(scenes), SOFT_TOKENS), np.int64)
    colours = np.zeros_like(kinds)
    offsets = np.zeros((*kinds.shape, 2), np.float32)
    for i, scene in enumerate(scenes):
        for body in scene.bodies:
            u, v = pixel_of(body)
            cell = int(np.clip(v // 16, 0, 7)) * 8 + int(np.clip(u // 16, 0, 7))
            kinds[i, cell] = 1 + KINDS.index(body.kind)
            colours[i, cell] = list(COLOURS).index(body.colour)
            offsets[i, cell] = (u % 16) / 16 - .5, (v % 16) / 16 - .5
    return kinds, colours, offsets


class VisionStage:
    """Teach tower and projection to say, for each cell, what is in it and where. Kinds and colours are said in the language model's own words: a feature
    must point the way the row of its word does, so that attention finds a thing by its name with almost nothing left to learn."""
    def __init__(self, model, run, tokenizer):
        self.model, self.run = model, run
        rows = model.get_input_embeddings().weight.detach()
        words = tokenizer.convert_tokens_to_ids([f"\u0120{word}" for word in [*KINDS, *COLOURS]])  # the pieces begin with a space
        assert tokenizer.unk_token_id not in words, "a kind or a colour is more than one piece"
        self.words = F.normalize(rows[words], dim=-1)
        self.sizes = (1, 2, 2)
        self.head = nn.Linear(WIDTH, sum(self.sizes))
        self.parameters = [*model.model.vision_tower.parameters(), *model.model.embed_vision.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, 1e-3)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, 1.2e-3, total_steps=run.settings.vision_steps)
        self.cells = cells_of(run.scenes)
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 8), indexing="ij")
        self.where = torch.stack([columns, rows], -1).reshape(1, SOFT_TOKENS, 2)

    def step(self, step):
        rng = np.random.default_rng([self.run.settings.seed, 1, step])
        pick = rng.integers(self.run.edges[2], self.run.edges[3], 64)
        kind, colour, offset = (torch.tensor(c[pick]) for c in self.cells)
        with torch.autocast("cpu", torch.bfloat16):
            features = self.model.model.get_image_features(self.run.images(pick), return_dict=True).pooler_output.float()
        nothing, offsets, cells = self.head(features).split(self.sizes, -1)
        kinds, colours = (features @ self.words.T).split((len(KINDS), len(COLOURS)), -1)
        kinds = torch.cat([nothing, kinds], -1)
        there = kind > 0
        loss = F.cross_entropy(kinds.transpose(1, 2), kind, weight=torch.tensor([.2] + [1.] * len(KINDS)))
        loss = loss + .5 * F.cross_entropy(colours[there], colour[there])
        loss = loss + 4 * (offsets - offset)[there].pow(2).sum(-1).mean() + (cells - self.where).pow(2).mean()
        loss = loss + features.mean((0, 1)).pow(2).mean()  # a component shared by all features would drown what differs
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.)  # without it a tower of this width falls back to seeing nothing at the peak of the rate
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        found = (kinds.argmax(-1) == kind) & (colours.argmax(-1) == colour) & there
        return dict(loss=loss.item(), found=found.sum().item() / there.sum().item())


# the caption stage

class Packer:
    "Several turns on one image in one row: each sees the image and itself, none sees another."
    def __init__(self, tokenizer):
        image = f"<start_of_image>{'<image_soft_token>' * SOFT_TOKENS}<end_of_image>"
        self.encode = lambda text: tokenizer(text).input_ids
        self.prefix = self.encode(f"<bos><start_of_turn>user\n\n\n{image}")  # as the processor writes it
        self.locs = torch.zeros(VOCABULARY + 32, dtype=torch.bool)
        self.locs[tokenizer.convert_tokens_to_ids([f"<loc{i:02d}>" for i in range(BINS)])] = True
        self.numbers = self.locs.clone()
        self.numbers[tokenizer.convert_tokens_to_ids([f"\u0120{i}" for i in range(100)])] = True

    def row(self, ask, length, most):
        "ids, labels, positions and turn (0: the image) of each token: turns until one does not fit, so that little is padding."
        ids, start = list(self.prefix), len(self.prefix)
        labels = [-100] * start
        positions = list(range(start))
        turn = [0] * start
        for number in range(1, most + 1):
            question, answer = ask()
            asked = self.encode(f"<end_of_image>\n\n{question}<end_of_turn>\n<start_of_turn>model\n")[1:]  # line ends merge with what follows them
            told = self.encode(f"{answer}<end_of_turn>\n")
            if number > 1 and len(ids) + len(asked) + len(told) > length:
                break
            ids += asked + told
            labels += [-100] * len(asked) + told
            positions += range(start, start + len(asked) + len(told))
            turn += [number] * (len(asked) + len(told))
        return ids, labels, positions, turn

    def text_row(self, asks, length):
        "The same of turns that have no image: each is a text of its own. An answer may be pieces, of which some are to be learned."
        ids = []
        labels = []
        positions = []
        turn = []
        for number in itertools.count(1):
            asked = asks()
            if not asked:
                continue
            question, answer = asked
            pieces = [(answer, True)] if isinstance(answer, str) else answer
            new = self.encode(f"<bos><start_of_turn>user\n{question}<end_of_turn>\n<start_of_turn>model\n")
            due = [-100] * len(new)
            for text, learned in (*pieces, ("<end_of_turn>\n", True)):
                told = self.encode(text)
                new += told
                due += told if learned else [-100] * len(told)
            if number > 1 and len(ids) + len(new) > length:
                return ids, labels, positions, turn
            ids += new
            labels += due
            positions += range(len(new))
            turn += [number] * len(new)

    def __call__(self, rows):
        "A batch of rows: ids, labels, positions, and which token may look at which."
        longest = max(len(ids) for ids, *_ in rows)
        pad = lambda values, empty: torch.tensor([v + [empty] * (longest - len(v)) for v in values])
        ids, labels, positions, turn = (pad(values, empty) for values, empty in zip(zip(*rows), (0, -100, 0, 99)))
        own = (turn[:, :, None] == turn[:, None]) | (turn[:, None] == 0)
        return ids, labels, positions, (own & torch.ones(longest, longest, dtype=torch.bool).tril())[:, None]


class CaptionStage:
    """From easy to hard: one thing on the table, two, many whose colours differ, and then all tables and all questions. Where two things share a colour,
    colour *and* kind must be looked up together, and a model that looks up nothing yet does not learn that; nor to measure and to compare.
    With the last lesson the tower learns too, and some turns are texts to repeat: words that no answer uses would stay unusable. In the last part the
    language model's weights are those that NF4 will leave of them."""
    def __init__(self, model, run, processor):
        self.model = model
        self.run = run
        self.pack = Packer(processor.tokenizer)
        self.texts = words_scenes(tuple(TASKS), 200, SPLITS["validation"] + SPLIT_SIZE - 1000)
        one, two, _, plain = (np.arange(*ends) for ends in zip(run.edges, run.edges[1:]))
        self.lessons = [one, two, plain, np.arange(run.edges[3])]
        self.tower = [*model.model.vision_tower.parameters()]
        others = [p for p in model.parameters() if all(p is not t for t in self.tower)]
        groups = [dict(params=others, lr=run.settings.rate), dict(params=self.tower, lr=run.settings.rate * .2)]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=.01, betas=(.9, .98))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.rate_at)
        self.lesson, self.good = 0, 0.

    def rate_at(self, step):
        steps = self.run.settings.caption_steps
        return min(1, (step + 1) / 50) * min(1, max(.02, (steps - step) / (steps * .4)))

    @property
    def quantized_from(self):
        return int(self.run.settings.caption_steps * .65)

    @property
    def last(self):
        return self.lesson == len(self.lessons) - 1

    def draw(self, rng):
        "Tables of this lesson, and a fifth of them of an earlier one."
        settings = self.run.settings
        picked = [self.lessons[self.lesson] if rng.random() < .8 else self.lessons[int(rng.integers(self.lesson + 1))] for _ in range(settings.batch)]
        return np.array([int(rng.choice(tables)) for tables in picked])

    def row(self, rng, scene):
        asker = Asker(rng, scene.bodies, EASY if not self.last else None)
        ask = lambda: repetition(rng, self.texts) if self.last and rng.random() < .15 else asker()
        return self.pack.row(ask, self.run.settings.length, self.run.settings.turns)

    def hidden(self, images, ids, positions, seen):
        features = self.model.model.get_image_features(images, return_dict=True).pooler_output
        masks = dict(full_attention=seen, sliding_attention=seen)
        return self.model.model(input_ids=ids, attention_mask=masks, position_ids=positions,
                                mm_encoder_outputs=dict(image=BaseModelOutputWithPooling(pooler_output=features))).last_hidden_state

    def step(self, step):
        settings = self.run.settings
        if step == self.quantized_from:
            through_nf4(self.model)
        for parameter in self.tower:
            parameter.requires_grad_(self.last)
        rng = np.random.default_rng([settings.seed, 2, step])
        pick = self.draw(rng)
        ids, labels, positions, seen = self.pack([self.row(rng, self.run.scenes[i]) for i in pick])
        due = labels[:, 1:] >= 0
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self.hidden(self.run.images(pick), ids, positions, seen)[:, :-1][due]
            logits = self.model.lm_head(hidden)
        cap, label = self.model.config.text_config.final_logit_softcapping, labels[:, 1:][due]
        logits = cap * (logits.float() / cap).tanh()
        losses, locs = F.cross_entropy(logits, label, reduction="none"), self.pack.locs[label]
        loss = losses[locs].mean() + .5 * losses[~locs].mean()
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], 1.)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        first = locs & ~F.pad(locs, (1, 0))[:-1]  # the first half of a location is looked up by name, the second can follow from the first
        near = (logits[first].argmax(-1) - label[first]).abs() <= 2
        self.good = .9 * self.good + .1 * near.float().mean().item()
        told = dict(lesson=self.lesson + 1, loss=loss.item(), location_loss=losses[locs].mean().item(), within_2=self.good)
        if self.good > READY and not self.last:
            self.lesson, self.good = self.lesson + 1, 0.
        return told

def undecided(losses):
    "The mean loss of tokens that are not known yet: those that are would drown a choice, one word in a hundred, or a number."
    return losses.sum() / max(16, (losses.detach() > KNOWN_LOSS).sum().item())


class ReasonStage:
    """Every number and every choice follows from what stands before it: look up, subtract, compare, count. First drills, texts of nothing but that; then
    pictures too, whose soft tokens are computed once, since the tower has learned all that it will, and texts whose questions tell the places. In the last
    part the weights are those that NF4 will leave of them."""
    def __init__(self, model, run, processor):
        self.model = model
        self.run = run
        self.pack = Packer(processor.tokenizer)
        self.texts = words_scenes(tuple(TASKS), 200, SPLITS["validation"] + SPLIT_SIZE - 1000)
        for parameter in (*model.model.vision_tower.parameters(), *model.model.embed_vision.parameters()):
            parameter.requires_grad_(False)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, run.settings.rate, weight_decay=.01, betas=(.9, .98))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.rate_at)
        self.tables = np.arange(run.edges[1], run.edges[4])
        askers = [Reasoner(None, run.scenes[t].bodies) for t in self.tables]
        self.odd = np.array([i for i, asker in enumerate(askers) if asker.differs()])
        self.measured = np.array([i for i, asker in enumerate(askers) if "extreme" in asker.can()])
        self.quantized_from = run.settings.quantized_from

    @cached_property
    def features(self):
        "The soft tokens of all pictures, (tables, tokens, width)."
        seen = []
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            for some in tqdm(np.array_split(self.tables, 200), "soft tokens"):
                seen.append(self.model.model.get_image_features(self.run.images(some), return_dict=True).pooler_output.bfloat16())
        return torch.cat(seen)

    def rate_at(self, step):
        steps = self.run.settings.reason_steps
        return min(1, (step + 1) / 50) * min(1, max(.02, (steps - step) / (steps * .4)))

    def drill(self, rng):
        return self.pack.text_row(Driller(rng), self.run.settings.reason_length)

    def told(self, rng):
        ask = lambda: Reasoner(rng, self.run.scenes[int(rng.choice(self.tables))].bodies, told=True)()
        return self.pack.text_row(ask, self.run.settings.reason_length)

    def seen(self, rng, scene):
        asker = Reasoner(rng, scene.bodies)
        ask = lambda: repetition(rng, self.texts) if rng.random() < .05 else asker()
        return self.pack.row(ask, self.run.settings.reason_length, 8)

    def hidden(self, rows, pick=None):
        "What the model makes of the tokens before those that are due, and these."
        ids, labels, positions, seen = self.pack(rows)
        masks = dict(full_attention=seen, sliding_attention=seen)
        more = {} if pick is None else dict(mm_encoder_outputs=dict(image=BaseModelOutputWithPooling(pooler_output=self.features[pick].float())))
        hidden = self.model.model(input_ids=ids, attention_mask=masks, position_ids=positions, **more).last_hidden_state
        due = labels[:, 1:] >= 0
        return hidden[:, :-1][due], labels[:, 1:][due]

    def step(self, step):
        settings = self.run.settings
        if step == self.quantized_from:
            through_nf4(self.model)
        rng = np.random.default_rng([settings.seed, 3, step])
        with torch.autocast("cpu", torch.bfloat16):
            if step < settings.drill_steps:
                parts = [self.hidden([self.drill(rng) for _ in range(8)])]
            else:
                pick = np.concatenate([rng.integers(len(self.tables), size=3), rng.choice(self.measured, 3), rng.choice(self.odd, 2)])
                parts = [self.hidden([self.seen(rng, self.run.scenes[self.tables[i]]) for i in pick], pick),
                         self.hidden([*(self.told(rng) for _ in range(2)), *(self.drill(rng) for _ in range(4))])]
            hidden, label = map(torch.cat, zip(*parts))
            logits = self.model.lm_head(hidden)
        cap = self.model.config.text_config.final_logit_softcapping
        logits = cap * (logits.float() / cap).tanh()
        losses, numbers = F.cross_entropy(logits, label, reduction="none"), self.pack.numbers[label]
        loss = sum(undecided(some) for some in (losses[numbers], losses[~numbers]))
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        counted = numbers & ~self.pack.locs[label]
        right = (logits[counted].argmax(-1) == label[counted]).float().mean().item()
        return dict(loss=loss.item(), number_loss=losses[counted].mean().item(), numbers_right=right, tokens=len(label))

# the run

def draw(scenes):
    "Their images."
    world = World()
    pictures = [world.reset(scene).render(PIXELS) for scene in scenes]
    world.close()
    return np.stack(pictures)


@dataclass
class Settings:
    "How long to train, and where the result goes."
    folder: Path = Path("thinkact_nb/standin")  # weights, configuration, tokenizer and training log
    work: Path = Path("runs/standin")           # images and checkpoints, to go on from
    seed: int = 0
    vision_steps: int = 800
    caption_steps: int = 1400
    images: int = 16000     # tables with all their things
    few: int = 2000         # tables with one thing, and as many with two, on top
    batch: int = 32         # images a step
    length: int = 200       # tokens of an image and its questions
    turns: int = 3          # questions an image, at most
    rate: float = 1e-3
    drill_steps: int = 800     # of the reasoning stage: arithmetic alone
    reason_steps: int = 2100   # of the reasoning stage in all
    quantized_from: int = 1700 # of these, the first with weights as NF4 leaves them
    reason_length: int = 320   # tokens of its rows
    every: int = 250        # steps between two checkpoints
    tables: int = 60        # L0 tables that are asked about at each checkpoint; 0: none is
    stop_after: int | None = None  # steps of this call, to try it out
    start: Path | None = None  # begin the last stage with these weights


class Run:
    "Images, checkpoints and the log."
    def __init__(self, settings):
        self.settings = settings
        self.start = time.time()
        self.entries = []
        settings.work.mkdir(parents=True, exist_ok=True)
        settings.folder.mkdir(parents=True, exist_ok=True)
        sizes = (settings.few, settings.few, settings.images, 2 * settings.few)
        self.edges = np.cumsum([0, *sizes])
        crowds = np.repeat(CROWDS, sizes)
        self.scenes = [table_of(seed, int(most), seed >= self.edges[3]) for seed, most in enumerate(crowds)]
        self.pictures = self.draw_all(crowds)
        self.left = settings.stop_after or 10**9

    def draw_all(self, crowds):
        file = self.settings.work / f"pictures{len(crowds)}.npy"
        if not file.exists():
            parts = [self.scenes[i:i + 250] for i in range(0, len(crowds), 250)]
            with ProcessPoolExecutor(2) as pool:
                drawn = list(tqdm(pool.map(draw, parts), "images", len(parts)))
            np.save(part := file.with_suffix(".part.npy"), np.concatenate(drawn))
            part.replace(file)
        return torch.from_numpy(np.load(file)).permute(0, 3, 1, 2)

    def images(self, pick):
        return self.pictures[pick].float().div(255).contiguous(memory_format=torch.channels_last)

    def log(self, **entry):
        entry = {k: round(v, 4) if isinstance(v, float) else v for k, v in entry.items()} | dict(seconds=round(time.time() - self.start))
        self.entries.append(entry)
        tqdm.write(json.dumps(entry))

    def keep(self, step, model, stage):
        "A checkpoint, whole or not at all."
        state = dict(step=step, model=weights_of(model), optimizer=stage.optimizer.state_dict(), schedule=stage.schedule.state_dict(),
                     more={k: getattr(stage, k) for k in ("lesson", "good") if hasattr(stage, k)}, entries=self.entries, seconds=time.time() - self.start)
        if isinstance(stage, VisionStage):
            state["head"] = stage.head.state_dict()
        file = self.settings.work / f"{type(stage).__name__}.pt"
        torch.save(state, part := file.with_suffix(".part"))
        part.replace(file)

    def again(self, model, stage):
        "Go on from the checkpoint of a stage; returns the steps done."
        file = self.settings.work / f"{type(stage).__name__}.pt"
        if not file.exists():
            return 0
        state = torch.load(file, weights_only=True)
        model.load_state_dict(state["model"])
        stage.optimizer.load_state_dict(state["optimizer"])
        stage.schedule.load_state_dict(state["schedule"])
        for name, value in state["more"].items():
            setattr(stage, name, value)
        if "head" in state:
            stage.head.load_state_dict(state["head"])
        if state["step"] > getattr(stage, "quantized_from", state["step"]):
            through_nf4(model)
        self.entries, self.start = state["entries"], time.time() - state["seconds"]
        return state["step"]

    def train(self, model, stage, steps, measure):
        done = self.again(model, stage)
        for step in tqdm(range(done, steps), type(stage).__name__, steps, initial=done):
            if not self.left:
                raise SystemExit(0)
            self.left -= 1
            told = stage.step(step)
            if step % 50 == 49:
                self.log(stage=type(stage).__name__, step=step + 1, **told)
            if step % self.settings.every == self.settings.every - 1 or step + 1 == steps:
                measured = measure()
                if measured:
                    self.log(stage="answers", step=step + 1, **measured)
                self.keep(step + 1, model, stage)


def save(model, processor, run):
    "What `load_base` loads: half precision, no optimizer."
    start = run.settings.start
    model.config.vision_config.model_args = json.loads((start / "config.json").read_text(encoding="utf-8"))["vision_config"]["model_args"] if start else tower_settings()
    model.save_pretrained(run.settings.folder, state_dict={k: v.half().contiguous() for k, v in weights_of(model).items()})
    processor.save_pretrained(run.settings.folder)
    (run.settings.folder / "pretraining.json").write_text(json.dumps(run.entries, indent=0) + "\n", encoding="utf-8")


def answers_of(model, processor, tables):
    table = summary(answers(model, processor, *tables))
    return {k: table[k] for k in ("coordinates_within_1", "found", "twins", "list_right")}


def skills_of(model, processor, tables):
    "What is seen, and what is computed."
    skills = reasoned(model, processor, *tables)
    return answers_of(model, processor, tables) | {k: v for k, v in skills.items() if not k.endswith("_n")}


def main(settings: Settings):
    torch.manual_seed(settings.seed)
    run, processor = Run(settings), AutoProcessor.from_pretrained(settings.start) if settings.start else make_processor()
    model = Gemma3nForConditionalGeneration.from_pretrained(settings.start, dtype=torch.float32) if settings.start else make_model(processor.tokenizer)
    model.model.vision_tower.to(memory_format=torch.channels_last)
    print(sum(p.numel() for p in model.parameters()), "parameters")
    tables = settings.tables and unseen_tables(settings.tables, SPLITS["validation"] + 500_000)

    def measure(of=answers_of):
        if not tables:
            return {}
        model.eval()
        processor.tokenizer.eos_token = GEMMA3N.turn_end  # an answer ends with its turn
        found = of(model, processor, tables)
        processor.tokenizer.eos_token = "<eos>"
        model.train()
        return found

    if not settings.start and not (settings.work / "ReasonStage.pt").exists():
        if not (settings.work / "CaptionStage.pt").exists():
            run.train(model, VisionStage(model, run, processor.tokenizer), settings.vision_steps, dict)
        run.train(model, CaptionStage(model, run, processor), settings.caption_steps, measure)
        exact(model)
        model.load_state_dict({k: v.half().float() if v.is_floating_point() else v for k, v in model.state_dict().items()})  # as a file would keep them
    run.train(model, ReasonStage(model, run, processor), settings.reason_steps, lambda: measure(skills_of))
    exact(model)
    save(model, processor, run)


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    main(tyro.cli(Settings))
